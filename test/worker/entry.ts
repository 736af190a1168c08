/** The worker as the tests of this project run it: the deployed one, with a state of the keys whose world a test makes. */

import { KeyState as DeployedKeyState } from '../../worker/state/key_state.ts'
import { worldOf } from './key_world.ts'

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
