import { buses } from './events/buses.ts';
import { relays } from './events/relays.ts';
import { stores } from './events/stores.ts';

export async function events(): Promise<void> {
  await buses();
  await stores();
  await relays();
}
