/// <reference path="./undici-parts.d.ts" />

/**
 * The parts of undici that Holdfast uses. All other imports from undici are types: a value of it
 * has to come from here.
 *
 * Its index does more than export: if no global dispatcher is set yet it sets one, which the
 * built-in fetch of Node then uses in place of its own (nodejs/undici#5500: another release of
 * undici, which rejects requests that Node's own accepts). A library must not do that to its
 * process. The parts do not, and load in a third of the time; they have been at these paths since
 * undici 6.7. A program that imports undici as well gets the same classes.
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

/** Keys under which undici's classes share state. */
export const symbols = undiciSymbols as { readonly kClients: symbol; readonly kDispatch: symbol };

// Adds `request`, `stream` and the like, as the index of undici does.
Object.assign(Dispatcher.prototype, api);
