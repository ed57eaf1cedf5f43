// Generated from the table of host calls: `UPDATE_GENERATED=1 cargo nextest run -p hostcalls`.
import * as chain from 'dunlin:platform/chain@0.1.0';
import * as state from 'dunlin:platform/state@0.1.0';

// A letter a parameter: u, U a number, t text, b bytes, o how much is wanted.
export const calls = {
  state_size: [state.size, 't'],
  state_get: [state.get, 'to'],
  state_set: [state.set, 'tb'],
  state_read: [state.read, 'tUo'],
  state_write: [state.write, 'tUb'],
  state_add: [state.add, 'tUUo'],
  state_append: [state.append, 'tb'],
  state_truncate: [state.truncate, 'tU'],
  state_delete: [state.delete, 't'],
  state_list: [state.list, 'tto'],
  state_version: [state.version, 't'],
  state_swap: [state.swap, 'tUb'],
  state_expire: [state.expire, 'tU'],
  state_lock: [state.lock, 'tuUU'],
  state_unlock: [state.unlock, 't'],
  state_push: [state.push, 'tUU'],
  state_pull: [state.pull, 'tUU'],
  chain_call: [chain.call, 'tb'],
  chain_spawn: [chain.spawn, 'tbu'],
  chain_wait: [chain.wait, 'uU'],
  chain_wait_any: [chain.waitAny, 'bU'],
  chain_wait_all: [chain.waitAll, 'bU'],
  chain_size: [chain.size, 'u'],
  chain_read: [chain.read, 'uUo'],
  chain_problem: [chain.problem, 'uo'],
  chain_id: [chain.id, 'uo'],
  chain_close: [chain.close, 'u'],
};
