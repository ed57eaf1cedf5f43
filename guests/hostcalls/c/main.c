/* Does what a script says, by the SDK for C. See ../README.md. */
#include <dunlin_objects.h>

#include "dispatch.h"

#define WAIT_MS 10000
#define CALLS_MAX 64

static uint64_t bits_of(double value) {
  uint64_t bits;
  memcpy(&bits, &value, 8);
  return bits;
}

static double number_of(uint64_t bits) {
  double value;
  memcpy(&value, &bits, 8);
  return value;
}

static const char *take_key(struct line *line) { return (const char *)take_text(line).at; }

static void get(struct line *line) {
  const char *key = take_key(line);
  if (!taken(line)) return;
  char *value;
  int64_t size = dunlin_get(key, &value);
  struct bytes bytes = {(unsigned char *)value, size < 0 ? 0 : (size_t)size};
  answer_filled(line, size, bytes);
}

static void call(struct line *line) {
  const char *function = take_key(line);
  struct bytes input = take_bytes(line);
  if (!taken(line)) return;
  struct dunlin_reply reply;
  int64_t result = dunlin_call(function, input.at, input.length, &reply);
  struct bytes bytes = {(unsigned char *)reply.data, reply.length};
  if (result < 0 && result != DUNLIN_E_FAILED) answer(line, result);
  else answer_with(line, result < 0 ? result : (int64_t)reply.length, bytes);
}

/* Spawns `count` calls; gives 0 or an error. */
static int64_t spawn(const char *function, struct bytes input, uint64_t count, uint32_t *handles) {
  for (uint64_t i = 0; i < count; i++) {
    int64_t handle = dunlin_spawn(function, input.at, input.length, 0);
    if (handle < 0) return handle;
    handles[i] = (uint32_t)handle;
  }
  return 0;
}

static void fan(struct line *line, bool all) {
  const char *function = take_key(line);
  struct bytes input = take_bytes(line), out = {NULL, 0};
  uint64_t count = take_number(line);
  uint32_t handles[CALLS_MAX];
  if (count > CALLS_MAX) line->malformed = true;
  if (!taken(line)) return;
  int64_t result = spawn(function, input, count, handles);
  if (result < 0) {
    answer(line, result);
    return;
  }
  if (!all) {
    answer(line, dunlin_any(handles, (size_t)count, WAIT_MS));
    return;
  }
  result = dunlin_all(handles, (size_t)count, WAIT_MS);
  for (uint64_t i = 0; result >= 0 && i < count; i++) {
    struct dunlin_reply reply;
    if (dunlin_join(handles[i], 0, &reply) < 0) continue;
    out.at = (unsigned char *)realloc(out.at, out.length + reply.length + 1);
    memcpy(out.at + out.length, reply.data, reply.length);
    out.length += reply.length;
  }
  if (result < 0) answer(line, result);
  else answer_with(line, result, out);
}

/* Adds once to an 8-byte value by get and set, while it has the lock to itself. */
static int64_t add_locked(const char *key, uint64_t count) {
  DUNLIN_GUARD(held, key, DUNLIN_EXCLUSIVE, WAIT_MS);
  if (held == NULL) return DUNLIN_E_TIMED_OUT;
  uint64_t value = 0;
  int64_t size = dunlin_state_get(key, strlen(key), &value, sizeof value);
  if (size < 0 && size != DUNLIN_E_NOT_FOUND) return size;
  value += count;
  size = dunlin_set(key, &value, sizeof value);
  return size < 0 ? size : (int64_t)value;
}

static void locked_add(struct line *line) {
  const char *key = take_key(line);
  uint64_t count = take_number(line), times = take_number(line);
  if (!taken(line)) return;
  int64_t result = 0;
  for (uint64_t i = 0; i < times && result >= 0; i++) result = add_locked(key, count);
  answer(line, result);
}

static void counter(struct line *line, bool add) {
  const char *key = take_key(line);
  uint64_t count = add ? take_number(line) : 0, times = add ? take_number(line) : 0;
  if (!taken(line)) return;
  struct dunlin_counter counter;
  int64_t result = dunlin_counter_open(&counter, key);
  if (result >= 0 && !add) result = (int64_t)dunlin_counter_value(&counter);
  for (uint64_t i = 0; i < times && result >= 0; i++)
    result = (int64_t)dunlin_counter_add(&counter, count);
  answer(line, result);
}

static void vector(struct line *line, bool put) {
  const char *key = take_key(line);
  uint64_t length = put ? take_number(line) : 0, at = take_number(line);
  uint64_t bits = put ? take_number(line) : 0;
  if (!taken(line)) return;
  struct dunlin_vector_f64 vector;
  int64_t result = dunlin_vector_f64_open(&vector, key, length, put ? DUNLIN_WRITE : DUNLIN_READ);
  if (result >= 0 && at >= vector.length) result = DUNLIN_E_INVALID;
  if (result >= 0 && put) vector.at[at] = number_of(bits);
  if (result >= 0 && !put) result = (int64_t)bits_of(vector.at[at]);
  answer(line, result);
}

static void matrix(struct line *line, bool put) {
  const char *key = take_key(line);
  uint64_t rows = put ? take_number(line) : 0, cols = put ? take_number(line) : 0;
  uint64_t row = take_number(line), col = take_number(line), bits = put ? take_number(line) : 0;
  if (!taken(line)) return;
  struct dunlin_matrix_f64 matrix;
  int64_t result = put ? dunlin_matrix_f64_make(&matrix, key, rows, cols)
                       : dunlin_matrix_f64_open(&matrix, key, DUNLIN_READ);
  if (result >= 0 && (row >= matrix.rows || col >= matrix.cols)) result = DUNLIN_E_INVALID;
  if (result >= 0 && put) matrix.at[row * matrix.cols + col] = number_of(bits);
  if (result >= 0 && !put) result = (int64_t)bits_of(matrix.at[row * matrix.cols + col]);
  answer(line, result);
}

static void sparse_put(struct line *line) {
  const char *key = take_key(line);
  uint64_t rows = take_number(line), cols = take_number(line);
  struct bytes entries = take_bytes(line);
  if (!taken(line)) return;
  struct dunlin_sparse_f64 sparse;
  uint64_t count = entries.length / 16, at = 0;
  int64_t result = dunlin_sparse_f64_make(&sparse, key, rows, cols, count);
  for (uint64_t row = 0; result >= 0 && row < rows; row++) {
    for (sparse.starts[row] = at; at < count; at++) {
      uint32_t place[2];
      memcpy(place, entries.at + 16 * at, 8);
      if (place[0] != row) break;
      sparse.columns[at] = place[1];
      memcpy(&sparse.values[at], entries.at + 16 * at + 8, 8);
    }
    sparse.starts[row + 1] = at;
  }
  if (result >= 0) result = dunlin_sparse_publish(key);
  answer(line, result < 0 ? result : 0);
}

static void sparse_at(struct line *line) {
  const char *key = take_key(line);
  uint64_t row = take_number(line), col = take_number(line);
  if (!taken(line)) return;
  struct dunlin_sparse_f64 sparse;
  int64_t result = dunlin_sparse_f64_open(&sparse, key, DUNLIN_READ);
  if (result >= 0) result = (int64_t)bits_of(dunlin_sparse_f64_at(&sparse, row, (uint32_t)col));
  answer(line, result);
}

static void list_add(struct line *line) {
  const char *key = take_key(line);
  struct bytes record = take_bytes(line);
  if (!taken(line)) return;
  struct dunlin_list list = {key, (uint32_t)record.length};
  answer(line, dunlin_list_add(&list, record.at));
}

static void list_at(struct line *line, bool length) {
  const char *key = take_key(line);
  struct bytes record = take_out(line);
  uint64_t place = length ? 0 : take_number(line);
  if (!taken(line)) return;
  struct dunlin_list list = {key, (uint32_t)record.length};
  if (length) {
    answer(line, dunlin_list_length(&list));
    return;
  }
  int64_t result = dunlin_list_at(&list, place, record.at);
  answer_filled(line, result < 0 ? result : (int64_t)record.length, record);
}

static void dict_put(struct line *line) {
  const char *key = take_key(line);
  uint64_t key_max = take_number(line), value_max = take_number(line);
  struct bytes name = take_bytes(line), value = take_bytes(line);
  if (!taken(line)) return;
  struct dunlin_dict dict;
  DUNLIN_GUARD(held, key, DUNLIN_EXCLUSIVE, WAIT_MS);
  int64_t result = held == NULL ? (int64_t)DUNLIN_E_TIMED_OUT
                                : dunlin_dict_make(&dict, key, (uint32_t)key_max,
                                                   (uint32_t)value_max);
  if (result >= 0) result = dunlin_dict_put(&dict, name.at, name.length, value.at, value.length);
  answer(line, result);
}

static void dict_use(struct line *line, const char *command) {
  const char *key = take_key(line);
  struct bytes name = {NULL, 0};
  bool remove = strcmp(command, "dict_remove") == 0, length = strcmp(command, "dict_length") == 0;
  if (!length) name = take_bytes(line);
  if (!taken(line)) return;
  struct dunlin_dict dict;
  const void *value = NULL;
  DUNLIN_GUARD(held, key, remove ? DUNLIN_EXCLUSIVE : DUNLIN_SHARED, WAIT_MS);
  int64_t result = held == NULL ? (int64_t)DUNLIN_E_TIMED_OUT
                                : dunlin_dict_open(&dict, key, remove ? DUNLIN_WRITE : DUNLIN_READ);
  if (result >= 0 && length) result = (int64_t)dunlin_dict_length(&dict);
  else if (result >= 0 && remove) result = dunlin_dict_remove(&dict, name.at, name.length);
  else if (result >= 0) result = dunlin_dict_get(&dict, name.at, name.length, &value);
  struct bytes bytes = {(unsigned char *)(uintptr_t)value, result < 0 ? 0 : (size_t)result};
  if (result >= 0 && !length && !remove) answer_with(line, result, bytes);
  else answer(line, result);
}

static void run(struct line *line, const char *name) {
  if (dispatch(line, name) || touch_memory(line, name)) return;
  if (strcmp(name, "get") == 0) get(line);
  else if (strcmp(name, "call") == 0) call(line);
  else if (strcmp(name, "fan") == 0) fan(line, true);
  else if (strcmp(name, "any") == 0) fan(line, false);
  else if (strcmp(name, "locked_add") == 0) locked_add(line);
  else if (strcmp(name, "counter_add") == 0) counter(line, true);
  else if (strcmp(name, "counter_value") == 0) counter(line, false);
  else if (strcmp(name, "vector_put") == 0) vector(line, true);
  else if (strcmp(name, "vector_at") == 0) vector(line, false);
  else if (strcmp(name, "matrix_put") == 0) matrix(line, true);
  else if (strcmp(name, "matrix_at") == 0) matrix(line, false);
  else if (strcmp(name, "sparse_put") == 0) sparse_put(line);
  else if (strcmp(name, "sparse_at") == 0) sparse_at(line);
  else if (strcmp(name, "list_add") == 0) list_add(line);
  else if (strcmp(name, "list_at") == 0) list_at(line, false);
  else if (strcmp(name, "list_length") == 0) list_at(line, true);
  else if (strcmp(name, "dict_put") == 0) dict_put(line);
  else if (strncmp(name, "dict_", 5) == 0) dict_use(line, name);
  else {
    line->malformed = true;
    taken(line);
  }
}

DUNLIN_HANDLE handle(void) { return run_script(run); }
