# What bench/x509.ts starts, in the same plain workerd as everything else.
using Workerd = import "/workerd/workerd.capnp";

const x509 :Workerd.Config = (
  services = [(name = "main", worker = (
    modules = [(name = "x509.js", esModule = embed "../../dist/bench/x509.js")],
    compatibilityDate = "2026-11-01",
    compatibilityFlags = ["no_nodejs_compat"],
  ))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
