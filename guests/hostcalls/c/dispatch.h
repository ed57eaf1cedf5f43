/* Generated from the table of host calls: `UPDATE_GENERATED=1 cargo nextest run -p hostcalls`. */
#ifndef DISPATCH_H
#define DISPATCH_H

#include "script.h"

/* Makes the call of this name; false if there is none. */
static bool dispatch(struct line *line, const char *name) {
  if (strcmp(name, "input_size") == 0) {
    if (!taken(line)) return true;
    answer(line, dunlin_input_size());
    return true;
  }
  if (strcmp(name, "input_read") == 0) {
    uint64_t offset = take_number(line);
    struct bytes out = take_out(line);
    if (!taken(line)) return true;
    answer_filled(line, dunlin_input_read((uint32_t)offset, out.at, out.length), out);
    return true;
  }
  if (strcmp(name, "output_write") == 0) {
    struct bytes data = take_bytes(line);
    if (!taken(line)) return true;
    answer(line, dunlin_output_write(data.at, data.length));
    return true;
  }
  if (strcmp(name, "log_write") == 0) {
    uint64_t level = take_number(line);
    struct bytes data = take_bytes(line);
    if (!taken(line)) return true;
    dunlin_log_write((uint32_t)level, data.at, data.length);
    answer(line, 0);
    return true;
  }
  if (strcmp(name, "state_size") == 0) {
    struct bytes key = take_text(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_size((const char *)key.at, key.length));
    return true;
  }
  if (strcmp(name, "state_get") == 0) {
    struct bytes key = take_text(line);
    struct bytes out = take_out(line);
    if (!taken(line)) return true;
    answer_filled(line, dunlin_state_get((const char *)key.at, key.length, out.at, out.length), out);
    return true;
  }
  if (strcmp(name, "state_set") == 0) {
    struct bytes key = take_text(line);
    struct bytes value = take_bytes(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_set((const char *)key.at, key.length, value.at, value.length));
    return true;
  }
  if (strcmp(name, "state_read") == 0) {
    struct bytes key = take_text(line);
    uint64_t offset = take_number(line);
    struct bytes out = take_out(line);
    if (!taken(line)) return true;
    answer_filled(line, dunlin_state_read((const char *)key.at, key.length, (uint64_t)offset, out.at, out.length), out);
    return true;
  }
  if (strcmp(name, "state_write") == 0) {
    struct bytes key = take_text(line);
    uint64_t offset = take_number(line);
    struct bytes data = take_bytes(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_write((const char *)key.at, key.length, (uint64_t)offset, data.at, data.length));
    return true;
  }
  if (strcmp(name, "state_add") == 0) {
    struct bytes key = take_text(line);
    uint64_t offset = take_number(line);
    uint64_t amount = take_number(line);
    struct bytes out = take_out(line);
    if (!taken(line)) return true;
    answer_filled(line, dunlin_state_add((const char *)key.at, key.length, (uint64_t)offset, (uint64_t)amount, out.at, out.length), out);
    return true;
  }
  if (strcmp(name, "state_append") == 0) {
    struct bytes key = take_text(line);
    struct bytes data = take_bytes(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_append((const char *)key.at, key.length, data.at, data.length));
    return true;
  }
  if (strcmp(name, "state_truncate") == 0) {
    struct bytes key = take_text(line);
    uint64_t size = take_number(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_truncate((const char *)key.at, key.length, (uint64_t)size));
    return true;
  }
  if (strcmp(name, "state_delete") == 0) {
    struct bytes key = take_text(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_delete((const char *)key.at, key.length));
    return true;
  }
  if (strcmp(name, "state_list") == 0) {
    struct bytes prefix = take_text(line);
    struct bytes after = take_text(line);
    struct bytes out = take_out(line);
    if (!taken(line)) return true;
    answer_filled(line, dunlin_state_list((const char *)prefix.at, prefix.length, (const char *)after.at, after.length, out.at, out.length), out);
    return true;
  }
  if (strcmp(name, "state_version") == 0) {
    struct bytes key = take_text(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_version((const char *)key.at, key.length));
    return true;
  }
  if (strcmp(name, "state_swap") == 0) {
    struct bytes key = take_text(line);
    uint64_t expected = take_number(line);
    struct bytes value = take_bytes(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_swap((const char *)key.at, key.length, (uint64_t)expected, value.at, value.length));
    return true;
  }
  if (strcmp(name, "state_expire") == 0) {
    struct bytes key = take_text(line);
    uint64_t ttl_ms = take_number(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_expire((const char *)key.at, key.length, (uint64_t)ttl_ms));
    return true;
  }
  if (strcmp(name, "state_lock") == 0) {
    struct bytes key = take_text(line);
    uint64_t mode = take_number(line);
    uint64_t wait_ms = take_number(line);
    uint64_t hold_ms = take_number(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_lock((const char *)key.at, key.length, (uint32_t)mode, (uint64_t)wait_ms, (uint64_t)hold_ms));
    return true;
  }
  if (strcmp(name, "state_unlock") == 0) {
    struct bytes key = take_text(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_unlock((const char *)key.at, key.length));
    return true;
  }
  if (strcmp(name, "state_map") == 0) {
    struct bytes key = take_text(line);
    uint64_t offset = take_number(line);
    uint64_t len = take_number(line);
    uint64_t mode = take_number(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_map((const char *)key.at, key.length, (uint64_t)offset, (uint64_t)len, (uint32_t)mode));
    return true;
  }
  if (strcmp(name, "state_push") == 0) {
    struct bytes key = take_text(line);
    uint64_t offset = take_number(line);
    uint64_t len = take_number(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_push((const char *)key.at, key.length, (uint64_t)offset, (uint64_t)len));
    return true;
  }
  if (strcmp(name, "state_pull") == 0) {
    struct bytes key = take_text(line);
    uint64_t offset = take_number(line);
    uint64_t len = take_number(line);
    if (!taken(line)) return true;
    answer(line, dunlin_state_pull((const char *)key.at, key.length, (uint64_t)offset, (uint64_t)len));
    return true;
  }
  if (strcmp(name, "chain_call") == 0) {
    struct bytes function = take_text(line);
    struct bytes input = take_bytes(line);
    if (!taken(line)) return true;
    answer(line, dunlin_chain_call((const char *)function.at, function.length, input.at, input.length));
    return true;
  }
  if (strcmp(name, "chain_spawn") == 0) {
    struct bytes function = take_text(line);
    struct bytes input = take_bytes(line);
    uint64_t flags = take_number(line);
    if (!taken(line)) return true;
    answer(line, dunlin_chain_spawn((const char *)function.at, function.length, input.at, input.length, (uint32_t)flags));
    return true;
  }
  if (strcmp(name, "chain_wait") == 0) {
    uint64_t handle = take_number(line);
    uint64_t wait_ms = take_number(line);
    if (!taken(line)) return true;
    answer(line, dunlin_chain_wait((uint32_t)handle, (uint64_t)wait_ms));
    return true;
  }
  if (strcmp(name, "chain_wait_any") == 0) {
    struct bytes handles = take_bytes(line);
    uint64_t wait_ms = take_number(line);
    if (!taken(line)) return true;
    answer(line, dunlin_chain_wait_any(handles.at, handles.length, (uint64_t)wait_ms));
    return true;
  }
  if (strcmp(name, "chain_wait_all") == 0) {
    struct bytes handles = take_bytes(line);
    uint64_t wait_ms = take_number(line);
    if (!taken(line)) return true;
    answer(line, dunlin_chain_wait_all(handles.at, handles.length, (uint64_t)wait_ms));
    return true;
  }
  if (strcmp(name, "chain_size") == 0) {
    uint64_t handle = take_number(line);
    if (!taken(line)) return true;
    answer(line, dunlin_chain_size((uint32_t)handle));
    return true;
  }
  if (strcmp(name, "chain_read") == 0) {
    uint64_t handle = take_number(line);
    uint64_t offset = take_number(line);
    struct bytes out = take_out(line);
    if (!taken(line)) return true;
    answer_filled(line, dunlin_chain_read((uint32_t)handle, (uint64_t)offset, out.at, out.length), out);
    return true;
  }
  if (strcmp(name, "chain_problem") == 0) {
    uint64_t handle = take_number(line);
    struct bytes out = take_out(line);
    if (!taken(line)) return true;
    answer_filled(line, dunlin_chain_problem((uint32_t)handle, out.at, out.length), out);
    return true;
  }
  if (strcmp(name, "chain_id") == 0) {
    uint64_t handle = take_number(line);
    struct bytes out = take_out(line);
    if (!taken(line)) return true;
    answer_filled(line, dunlin_chain_id((uint32_t)handle, out.at, out.length), out);
    return true;
  }
  if (strcmp(name, "chain_close") == 0) {
    uint64_t handle = take_number(line);
    if (!taken(line)) return true;
    answer(line, dunlin_chain_close((uint32_t)handle));
    return true;
  }
  return false;
}

#endif
