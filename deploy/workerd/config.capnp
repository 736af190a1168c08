# The worker as one process of your own: plain workerd, the same build that `wrangler deploy` uploads.
#
#   npm run build
#   ISSUER=… TRUST_DOMAIN=… SIGNING_KEY=… AWS_…=… \
#     flock --nonblock --no-fork state/.lock "$(node -p "require('workerd').default")" serve deploy/workerd/config.capnp
#
# Beside this file it wants tls.crt and tls.key (the issuer must be https). Its state is in the folder `state` of where it is
# started, which must exist and which one process owns: workerd does not look, so flock does. docs/operations.md says more.
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .main),
    (name = "state", disk = (path = "state", writable = true)),
    (name = "internet", network = (allow = ["public"], tlsOptions = (trustBrowserCas = true))),
    # Spare: API servers that records of clusters may name as `connection.binding`. Take the marks off here and below, and say
    # where each is, by what CA it is known, and under which of the names in its certificate. A disk is for `reviewer.file`.
    #(name = "CLUSTER_1", external = (address = "192.0.2.1:6443", https = (options = (),
    #  certificateHost = "kubernetes.default.svc", tlsOptions = (trustedCertificates = [embed "cluster-1.crt"])))),
    #(name = "CLUSTER_2", external = (address = "192.0.2.2:6443", https = (options = (),
    #  certificateHost = "kubernetes.default.svc", tlsOptions = (trustedCertificates = [embed "cluster-2.crt"])))),
    #(name = "CLUSTER_DISK", disk = (path = "/var/run/secrets/spiffe-edge")),
    # Spare: where AWS_WEB_IDENTITY_TOKEN_FILE is. With it and AWS_ROLE_ARN no access key is needed.
    #(name = "AWS_WEB_IDENTITY", disk = (path = "/var/run/secrets/aws")),
  ],
  sockets = [
    (name = "https", address = "*:8443", service = "main", https = (
      options = (),
      tlsOptions = (keypair = (privateKey = embed "tls.key", certificateChain = embed "tls.crt")))),
  ],
);

const main :Workerd.Worker = (
  modules = [
    (name = "index.js", esModule = embed "../../dist/production/index.js"),
    (name = "manifest.yaml", text = embed "../../worker/manifest.yaml"),
  ],
  compatibilityDate = "2026-11-01",
  compatibilityFlags = ["no_nodejs_compat"],
  durableObjectNamespaces = [
    (className = "KeyState", uniqueKey = "spiffe-edge-KeyState", enableSql = true),
    (className = "PolicyState", uniqueKey = "spiffe-edge-PolicyState", enableSql = true),
    (className = "FederationState", uniqueKey = "spiffe-edge-FederationState", enableSql = true),
    (className = "TokenState", uniqueKey = "spiffe-edge-TokenState", enableSql = true),
  ],
  durableObjectStorage = (localDisk = "state"),
  bindings = [
    (name = "KEY_STATE", durableObjectNamespace = "KeyState"),
    (name = "POLICY_STATE", durableObjectNamespace = "PolicyState"),
    (name = "FEDERATION_STATE", durableObjectNamespace = "FederationState"),
    (name = "TOKEN_STATE", durableObjectNamespace = "TokenState"),
    (name = "ISSUER", fromEnvironment = "ISSUER"),
    (name = "TRUST_DOMAIN", fromEnvironment = "TRUST_DOMAIN"),
    (name = "SIGNING_KEY", fromEnvironment = "SIGNING_KEY"),
    (name = "CA_KEY", fromEnvironment = "CA_KEY"),
    (name = "WRAPPING_KEY", fromEnvironment = "WRAPPING_KEY"),
    (name = "VAULT_TOKEN_KEY", fromEnvironment = "VAULT_TOKEN_KEY"),
    (name = "ROTATE_AFTER_DAYS", fromEnvironment = "ROTATE_AFTER_DAYS"),
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
    #(name = "AWS_WEB_IDENTITY", service = "AWS_WEB_IDENTITY"),
    #(name = "CLUSTER_1", service = "CLUSTER_1"),
    #(name = "CLUSTER_2", service = "CLUSTER_2"),
    #(name = "CLUSTER_DISK", service = "CLUSTER_DISK"),
  ],
);
