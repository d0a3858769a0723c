import { SagaOrchestrator } from '../saga/saga-orchestrator.ts';
import type { SagaStore } from '../saga/saga-store.ts';
import { CommandError } from './command-error.ts';
import type { Report } from './report.ts';
import { createSagasView, formatSaga } from './saga-views.ts';
import type { SagasAction } from './sagas-arguments.ts';

/**
 * Shows the sagas of a store, or lets one go on.
 *
 * @throws CommandError if there is no such saga, or if its state does not allow what was asked for
 * @throws HoldfastError if the store cannot be reached, or the saga cannot be read
 */
export async function runSagasCommand(action: SagasAction, store: SagaStore, report: Report): Promise<void> {
  const orchestrator = new SagaOrchestrator({ store, sagas: [] });
  try {
    await perform(action, store, orchestrator, report);
  } finally {
    await orchestrator.close();
  }
}

async function perform(
  action: SagasAction,
  store: SagaStore,
  orchestrator: SagaOrchestrator,
  report: Report,
): Promise<void> {
  switch (action.action) {
    case 'list':
      return listSagas(action, orchestrator, report);
    case 'show':
      return showSaga(action.sagaId, store, report);
    case 'retry':
      return retrySaga(action.sagaId, orchestrator, report);
    case 'skip':
      return skipStep(action, orchestrator, report);
    case 'cancel':
      return cancelSaga(action.sagaId, orchestrator, report);
  }
}

async function listSagas(
  { status, name, unclaimed }: Extract<SagasAction, { action: 'list' }>,
  orchestrator: SagaOrchestrator,
  report: Report,
): Promise<void> {
  const view = createSagasView(status !== undefined || name !== undefined || unclaimed);
  const sagas = orchestrator.list({
    unclaimed,
    ...(status !== undefined && { status }),
    ...(name !== undefined && { name }),
  });
  await report.list(view, sagas);
}

async function showSaga(sagaId: string, store: SagaStore, report: Report): Promise<void> {
  const saga = await store.get(sagaId);
  if (saga === undefined) throw new CommandError(`there is no saga with this id ${report.place}`);
  report.tell(formatSaga(saga), saga);
}

async function retrySaga(sagaId: string, orchestrator: SagaOrchestrator, report: Report): Promise<void> {
  if (!(await orchestrator.retry(sagaId))) throw new CommandError(`the saga '${sagaId}' is not stuck`);
  report.tell([`the saga '${sagaId}' goes on where it is stuck`], { sagaId, retried: true });
}

async function skipStep(
  { sagaId, step, reason }: Extract<SagasAction, { action: 'skip' }>,
  orchestrator: SagaOrchestrator,
  report: Report,
): Promise<void> {
  if (!(await orchestrator.skip(sagaId, step, { reason }))) {
    throw new CommandError(`the saga '${sagaId}' is not stuck at the step '${step}'`);
  }
  report.tell([`the saga '${sagaId}' goes on without '${step}'`], { sagaId, step, skipped: true });
}

async function cancelSaga(sagaId: string, orchestrator: SagaOrchestrator, report: Report): Promise<void> {
  if (!(await orchestrator.cancel(sagaId))) {
    throw new CommandError(
      `the saga '${sagaId}' cannot be cancelled: it has reached its pivot or its end, or is compensated already`,
    );
  }
  report.tell([`the saga '${sagaId}' is cancelled`], { sagaId, cancelled: true });
}
