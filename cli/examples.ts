/** What `--help` shows at its end: a command line for each command, as somebody would type it. */

import type { Command } from 'commander'

/** By what stands behind `spiffe-edge`. */
const EXAMPLES: Readonly<Record<string, readonly string[]>> = {
  'kubeconfig workload-api': [
    'kubeconfig workload-api --audience k8s',
    'kubeconfig workload-api --kubeconfig ~/.kube/config --context shop',
  ],
  'kubeconfig psat': [
    'kubeconfig psat --issuer https://issuer.example.org --token-file /var/run/secrets/spiffe-edge/token',
  ],
  'kubeconfig oidc': [
    'kubeconfig oidc --issuer-url https://login.example.org --client-id kubernetes --kubeconfig ~/.kube/config --context shop',
  ],
  'kubeconfig oidc-file': ['kubeconfig oidc-file --issuer https://issuer.example.org --token-file ci-token'],
  'credential workload-api': [
    'credential workload-api',
    'credential workload-api --socket unix:///run/spire/api.sock --audience k8s-shop --hint admin',
  ],
  'credential psat': [
    'credential psat --issuer https://issuer.example.org --token-file /var/run/secrets/spiffe-edge/token',
  ],
  'credential oidc': [
    'credential oidc --issuer-url https://login.example.org --client-id kubernetes',
    'credential oidc --issuer-url https://login.example.org --client-id kubernetes --exchange --issuer https://issuer.example.org',
  ],
  login: ['login --issuer-url https://login.example.org --client-id kubernetes'],
  logout: ['logout', 'logout --issuer-url https://login.example.org'],
  'credential oidc-file': [
    'credential oidc-file --issuer https://issuer.example.org --token-file ci-token --audience k8s',
  ],
  agent: [
    'agent --issuer https://issuer.example.org --token-file /var/run/secrets/spiffe-edge/token --socket unix:///spiffe/agent.sock',
  ],
  'admin create': [
    'admin create --name alice',
    'admin create --name sync-eu --revocations-of eu --key-file sync-eu.key',
  ],
  'admin token': ['admin token'],
  apply: ['apply -f registrations.yaml --dry-run', 'apply -f registrations.yaml -f clusters.yaml --prune'],
  get: ['get', 'get registrations --output yaml'],
  delete: ['delete registration web'],
  ban: ['ban --spiffe-id spiffe://example.org/ns/shop/sa/web --reason "stolen laptop"'],
  unban: ['unban web-is-out'],
  'revoke key': ['revoke key 3rcmJfzgu7ltYf7y --kubeconfig eu.kubeconfig --apiserver eu=admin@eu --apiservers eu=3'],
  'revoke token': ['revoke token 8a6f7a0c-0c5e-4d6b-9d3c-2f1f0a0f9b11 --reason "pasted into a chat"'],
  'revoke subject': ['revoke subject spiffe://example.org/ns/shop/sa/batch --reason "the build was not ours"'],
  'structured-auth sync': [
    'structured-auth sync --cluster eu --template template.yaml --file authentication.yaml --interval 10',
  ],
  'cluster import': ['cluster import --kubeconfig eu.kubeconfig --name eu --binding CLUSTER_EU > eu.yaml'],
  'cluster check': ['cluster check --kubeconfig eu.kubeconfig --user spiffe://example.org/spiffe-edge/reviewer/eu'],
  'federation status': ['federation status'],
  'federation refresh': ['federation refresh --trust-domain partner.example'],
  'federation set': ['federation set --trust-domain partner.example --bundle partner.json'],
  'federation fetch': [
    'federation fetch --url https://partner.example/bundle --profile https_web --trust-domain partner.example',
  ],
  status: ['status', 'status --output json'],
  rotate: ['rotate --dry-run', 'rotate --kubeconfig eu.kubeconfig --apiserver eu=admin@eu --apiservers eu=3'],
  completion: ['completion bash > ~/.local/share/bash-completion/completions/spiffe-edge'],
  verify: ['verify --issuer https://issuer.example.org --trust-domain example.org --audience k8s < answer.json'],
}

/** Puts the examples behind the help of each command. */
export function addExamples(program: Command): void {
  for (const [path, command] of commandsOf(program, '')) {
    const lines = EXAMPLES[path]?.map((line) => `  $ ${program.name()} ${line}\n`) ?? []
    if (lines.length > 0) command.addHelpText('after', `\nExamples:\n${lines.join('')}`.trimEnd())
  }
}

/** @returns the commands that do something, by what stands behind the program's name */
export function commandsOf(command: Command, path: string): [string, Command][] {
  if (command.commands.length === 0) return [[path, command]]
  return command.commands.flatMap((child) => commandsOf(child, `${path} ${child.name()}`.trim()))
}
