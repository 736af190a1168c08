# What the worker is measured against, in the same plain workerd. bench/run.ts starts it with the name of one of the two.
using Workerd = import "/workerd/workerd.capnp";

const constant :Workerd.Config = (
  services = [(name = "main", worker = (
    modules = [(name = "constant.js", esModule = embed "../../dist/bench/constant.js")],
    compatibilityDate = "2026-11-01",
    compatibilityFlags = ["no_nodejs_compat"],
    bindings = [
      (name = "BODY", fromEnvironment = "BODY"),
      (name = "HEADERS", fromEnvironment = "HEADERS"),
    ],
  ))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);

const bare :Workerd.Config = (
  services = [(name = "main", worker = (
    modules = [(name = "bare.js", esModule = embed "../../dist/bench/bare.js")],
    compatibilityDate = "2026-11-01",
    compatibilityFlags = ["no_nodejs_compat"],
    bindings = [
      (name = "ISSUER", fromEnvironment = "ISSUER"),
      (name = "SUBJECT_KEY", fromEnvironment = "SUBJECT_KEY"),
      (name = "SIGNING_KEY", fromEnvironment = "SIGNING_KEY"),
    ],
  ))],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);
