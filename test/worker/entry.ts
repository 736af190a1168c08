/** The worker as the tests of this project run it: the deployed one, with states whose world a test makes. */

import { FederationState as DeployedFederationState } from '../../worker/state/federation_state.ts'
import { KeyState as DeployedKeyState } from '../../worker/state/key_state.ts'
import { TokenState as DeployedTokenState } from '../../worker/state/token_state.ts'
import { federationWorldOf } from './federation_world.ts'
import { worldOf } from './key_world.ts'
import { tokenWorldOf } from './token_world.ts'

export { default, PolicyState } from '../../worker/index.ts'

export class KeyState extends DeployedKeyState {
  protected override settings() {
    const world = worldOf(this.ctx.id)
    return world ? world.settings : super.settings()
  }

  protected override now(): number {
    return worldOf(this.ctx.id)?.clock.now() ?? super.now()
  }

  protected override async wakeUpAt(seconds: number | null): Promise<void> {
    const world = worldOf(this.ctx.id)
    if (world) world.wakeAt = seconds
    else await super.wakeUpAt(seconds)
  }
}

export class FederationState extends DeployedFederationState {
  protected override now(): number {
    return federationWorldOf(this.ctx.id)?.clock.now() ?? super.now()
  }

  protected override log(event: object): void {
    const world = federationWorldOf(this.ctx.id)
    if (world) world.events.push(event as Record<string, unknown>)
    else super.log(event)
  }

  protected override async wakeUpAt(seconds: number | null): Promise<void> {
    const world = federationWorldOf(this.ctx.id)
    if (world) world.wakeAt = seconds
    else await super.wakeUpAt(seconds)
  }
}

export class TokenState extends DeployedTokenState {
  protected override now(): number {
    return tokenWorldOf(this.ctx.id)?.clock.now() ?? super.now()
  }

  protected override async wakeUpAt(seconds: number): Promise<void> {
    const world = tokenWorldOf(this.ctx.id)
    if (world) world.wakeUpAt(this.ctx.id, seconds)
    else await super.wakeUpAt(seconds)
  }
}
