# What `npm start` runs: plain workerd, the development build, everything on this machine. Not for deployment.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .main),
    (name = "state", disk = (path = ".state/objects", writable = true)),
    # `private`, so that clusters and emulators on this machine can be reached.
    (name = "internet", network = (allow = ["public", "private"], tlsOptions = (trustBrowserCas = true))),
  ],
  sockets = [(name = "http", address = "127.0.0.1:8787", http = (), service = "main")],
);

const main :Workerd.Worker = (
  modules = [
    (name = "development.js", esModule = embed "../../dist/development/development.js"),
    (name = "manifest.yaml", text = embed "../../worker/manifest.yaml"),
  ],
  compatibilityDate = "2026-11-01",
  compatibilityFlags = ["no_nodejs_compat"],
  durableObjectNamespaces = [
    (className = "KeyState", uniqueKey = "spiffe-edge-KeyState", enableSql = true),
    (className = "PolicyState", uniqueKey = "spiffe-edge-PolicyState", enableSql = true),
    (className = "FederationState", uniqueKey = "spiffe-edge-FederationState", enableSql = true),
    (className = "TokenState", uniqueKey = "spiffe-edge-TokenState", enableSql = true),
    (className = "DemoCluster", uniqueKey = "spiffe-edge-DemoCluster", enableSql = true),
  ],
  durableObjectStorage = (localDisk = "state"),
  bindings = [
    (name = "MODE", text = "development"),
    (name = "KEY_STATE", durableObjectNamespace = "KeyState"),
    (name = "POLICY_STATE", durableObjectNamespace = "PolicyState"),
    (name = "FEDERATION_STATE", durableObjectNamespace = "FederationState"),
    (name = "TOKEN_STATE", durableObjectNamespace = "TokenState"),
    (name = "DEMO_CLUSTER", durableObjectNamespace = "DemoCluster"),
    (name = "ISSUER", fromEnvironment = "ISSUER"),
    (name = "TRUST_DOMAIN", fromEnvironment = "TRUST_DOMAIN"),
    (name = "SIGNING_KEY", fromEnvironment = "SIGNING_KEY"),
    (name = "CA_KEY", fromEnvironment = "CA_KEY"),
    (name = "WRAPPING_KEY", fromEnvironment = "WRAPPING_KEY"),
    (name = "VAULT_TOKEN_KEY", fromEnvironment = "VAULT_TOKEN_KEY"),
    (name = "ROTATE_AFTER_DAYS", fromEnvironment = "ROTATE_AFTER_DAYS"),
    (name = "KEY_TIMES", fromEnvironment = "KEY_TIMES"),
    (name = "AWS_REGION", fromEnvironment = "AWS_REGION"),
    (name = "AWS_ACCESS_KEY_ID", fromEnvironment = "AWS_ACCESS_KEY_ID"),
    (name = "AWS_SECRET_ACCESS_KEY", fromEnvironment = "AWS_SECRET_ACCESS_KEY"),
    (name = "AWS_SESSION_TOKEN", fromEnvironment = "AWS_SESSION_TOKEN"),
    (name = "AWS_ROLE_ARN", fromEnvironment = "AWS_ROLE_ARN"),
    (name = "AWS_WEB_IDENTITY_TOKEN_FILE", fromEnvironment = "AWS_WEB_IDENTITY_TOKEN_FILE"),
    (name = "AWS_ENDPOINT_URL_KMS", fromEnvironment = "AWS_ENDPOINT_URL_KMS"),
    (name = "AWS_ENDPOINT_URL_RESOURCE_GROUPS_TAGGING_API",
      fromEnvironment = "AWS_ENDPOINT_URL_RESOURCE_GROUPS_TAGGING_API"),
    (name = "AWS_ENDPOINT_URL_STS", fromEnvironment = "AWS_ENDPOINT_URL_STS"),
  ],
);
