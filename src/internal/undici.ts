/// <reference path="./undici-parts.d.ts" />

/**
 * The parts of undici that Holdfast uses. All else that is imported from undici is types: a value of it has to come from here.
 *
 * Its index would do more than to export: where no global dispatcher is set yet it sets one, which the built-in fetch
 * of Node then uses in place of its own (nodejs/undici#5500: another release of undici, which rejects what Node's own takes).
 * A library must not do that to the process that it is loaded in. The parts do not, and load in a third of the time; they
 * have been at these paths since undici 6.7. Whoever imports undici as well gets the same classes.
 */
import type * as undici from 'undici';
import api from 'undici/lib/api/index.js';
import connect from 'undici/lib/core/connect.js';
import undiciErrors from 'undici/lib/core/errors.js';
import undiciSymbols from 'undici/lib/core/symbols.js';
import agent from 'undici/lib/dispatcher/agent.js';
import client from 'undici/lib/dispatcher/client.js';
import dispatcher from 'undici/lib/dispatcher/dispatcher.js';

export const Agent = agent as typeof undici.Agent;
export const Client = client as typeof undici.Client;
export const Dispatcher = dispatcher as typeof undici.Dispatcher;
export const buildConnector = connect as typeof undici.buildConnector;
export const errors = undiciErrors as typeof undici.errors;

/** Keys under which undici's classes keep what concerns others of them. */
export const symbols = undiciSymbols as { readonly kClients: symbol; readonly kDispatch: symbol };

// `request`, `stream` and the like, as its index does it.
Object.assign(Dispatcher.prototype, api);
