/** START HERE. The worker as it is deployed: no demo in it, and 503 until it is configured (T-12). */

import { parseConfig } from './config.ts'
import manifest from './manifest.yaml'
import { createService } from './service.ts'

export { FederationState } from './state/federation_state.ts'
export { KeyState } from './state/key_state.ts'
export { PolicyState } from './state/policy_state.ts'
export { TokenState } from './state/token_state.ts'

export default createService((env) => parseConfig(env, manifest, 'production'))
