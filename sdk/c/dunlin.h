/* The calls between a reactor function and its node, for C and C++.
 *
 * A reactor is a core WebAssembly module, or a program for a micro-VM (see dunlin_vm.h), that has
 *   handle            run once for every invocation, in a fresh sandbox;
 *   init  (optional)  run once, at deploy: its work is part of the image every invocation starts from.
 * Write them with DUNLIN_HANDLE and DUNLIN_INIT. Both give 0 for success and the function's own
 * error code otherwise. Compile with:
 *   clang --target=wasm32-wasi -mexec-model=reactor -I sdk/c ...
 *
 * The calls themselves are in dunlin_calls.h. What is here saves writing: keys and names are C
 * strings, buffers grow, and replies come whole. What fails gives a negative number, an
 * `enum dunlin_error`; dunlin_strerror() says what it means. dunlin_objects.h has data objects.
 */
#ifndef DUNLIN_H
#define DUNLIN_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "dunlin_calls.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifdef __wasm__
#define DUNLIN_HANDLE __attribute__((export_name("handle"))) int32_t
#define DUNLIN_INIT __attribute__((export_name("init"))) int32_t
#else
#define DUNLIN_HANDLE int32_t
#define DUNLIN_INIT int32_t
#endif

enum dunlin_level {
  DUNLIN_ERROR = 0,
  DUNLIN_WARN = 1,
  DUNLIN_INFO = 2,
  DUNLIN_DEBUG = 3,
};

/* How a lock is held. */
enum dunlin_lock_mode { DUNLIN_SHARED = 0, DUNLIN_EXCLUSIVE = 1 };

/* What a mapping is for. */
enum dunlin_access { DUNLIN_READ = 0, DUNLIN_WRITE = 1 };

/* For dunlin_spawn(): the call goes on when its caller ends. */
#define DUNLIN_DETACHED 1u

/* To wait as long as the invocation itself may run. */
#define DUNLIN_FOREVER UINT64_C(86400000)

/* How often a buffer grows because the value grew meanwhile. */
#define DUNLIN_GET_TRIES_MAX 8

/* The whole body in memory from malloc, with a zero byte after it; NULL when there is no memory. */
static inline char *dunlin_input(size_t *length) {
  int32_t size = dunlin_input_size();
  char *body = (char *)malloc((size_t)size + 1);
  if (body == NULL) return NULL;
  int32_t count = dunlin_input_read(0, body, size);
  body[count] = 0;
  *length = (size_t)count;
  return body;
}

/* A whole value in memory from malloc, with a zero byte after it; gives its size. `*value` is NULL
 * where it fails. */
static inline int64_t dunlin_get(const char *key, char **value) {
  size_t name = strlen(key), room = 4096;
  *value = NULL;
  for (int tries = 0; tries < DUNLIN_GET_TRIES_MAX; tries++) {
    char *bytes = (char *)malloc(room + 1);
    if (bytes == NULL) return DUNLIN_E_EXHAUSTED;
    int64_t size = dunlin_state_get(key, name, bytes, room);
    if (size >= 0) {
      bytes[size] = 0;
      *value = bytes;
      return size;
    }
    free(bytes);
    if (size != DUNLIN_E_TOO_LARGE) return size;
    size = dunlin_state_size(key, name);
    if (size < 0) return size;
    if (size >= INT32_MAX) return DUNLIN_E_TOO_LARGE;
    room = (size_t)size;
  }
  return DUNLIN_E_TOO_LARGE;
}

/* Replaces a value; gives its new version. */
static inline int64_t dunlin_set(const char *key, const void *value, size_t length) {
  return dunlin_state_set(key, strlen(key), value, length);
}

/* The size of a value. */
static inline int64_t dunlin_size(const char *key) { return dunlin_state_size(key, strlen(key)); }

/* `length` bytes of a value from `offset` on, or all up to its end if 0, as memory that is shared
 * with every function that maps them. To write makes the value long enough. NULL where it fails:
 * then `*error` says why, if `error` is not NULL. */
static inline void *dunlin_map(const char *key, uint64_t offset, uint64_t length,
                               enum dunlin_access access, int64_t *error) {
  int64_t at = dunlin_state_map(key, strlen(key), offset, length, (uint32_t)access);
  if (error != NULL) *error = at < 0 ? at : 0;
  return at < 0 ? NULL : (void *)(uintptr_t)at;
}

/* Makes what was written to a value as safe as its durability says; gives the version. */
static inline int64_t dunlin_push(const char *key) {
  return dunlin_state_push(key, strlen(key), 0, 0);
}

/* Takes the lock of a key; gives 0. */
static inline int64_t dunlin_lock(const char *key, enum dunlin_lock_mode mode, uint64_t wait_ms) {
  return dunlin_state_lock(key, strlen(key), (uint32_t)mode, wait_ms, 0);
}

/* Gives the lock of a key back; gives 0. */
static inline int64_t dunlin_unlock(const char *key) {
  return dunlin_state_unlock(key, strlen(key));
}

static inline void dunlin_unlock_held(const char **key) {
  if (*key != NULL) dunlin_unlock(*key);
}

/* A lock that is given back where the block ends:
 *   DUNLIN_GUARD(held, "totals", DUNLIN_EXCLUSIVE, 1000);
 *   if (held == NULL) return ...;
 */
#define DUNLIN_GUARD(name, key, mode, wait_ms)                                          \
  __attribute__((cleanup(dunlin_unlock_held))) const char *name = (key);                \
  if (dunlin_lock(name, (mode), (wait_ms)) < 0) name = NULL

/* What a call of a function came to. */
struct dunlin_reply {
  /* The reply, or why the function failed; from malloc, with a zero byte after it. */
  char *data;
  size_t length;
};

static inline void dunlin_reply_free(struct dunlin_reply *reply) {
  free(reply->data);
  reply->data = NULL;
  reply->length = 0;
}

/* Why a call failed, as text of at most 1000 bytes. */
static inline void dunlin_problem(uint32_t handle, struct dunlin_reply *reply) {
  const size_t room = 1000;
  reply->data = (char *)malloc(room + 1);
  if (reply->data == NULL) return;
  int64_t count = dunlin_chain_problem(handle, reply->data, room);
  reply->length = count < 0 ? 0 : (size_t)count;
  reply->data[reply->length] = 0;
}

/* Waits for a call, takes its reply and forgets it; gives 0. DUNLIN_E_FAILED if the function
 * failed: the reply is why. A call that goes on (DUNLIN_E_TIMED_OUT) is not forgotten. */
static inline int64_t dunlin_join(uint32_t handle, uint64_t wait_ms, struct dunlin_reply *reply) {
  reply->data = NULL;
  reply->length = 0;
  int64_t result = dunlin_chain_wait(handle, wait_ms);
  if (result == DUNLIN_E_TIMED_OUT) return result;
  if (result == DUNLIN_E_FAILED) dunlin_problem(handle, reply);
  int64_t size = result < 0 ? result : dunlin_chain_size(handle);
  if (size >= 0) {
    reply->data = (char *)malloc((size_t)size + 1);
    result = reply->data == NULL ? (int64_t)DUNLIN_E_EXHAUSTED
                                 : dunlin_chain_read(handle, 0, reply->data, (size_t)size);
    reply->length = result < 0 ? 0 : (size_t)result;
    if (reply->data != NULL) reply->data[reply->length] = 0;
    if (result > 0) result = 0;
  } else if (result >= 0) {
    result = size;
  }
  dunlin_chain_close(handle);
  return result;
}

/* Calls a function and takes its reply; gives 0, as dunlin_join() does. */
static inline int64_t dunlin_call(const char *function, const void *input, size_t length,
                                  struct dunlin_reply *reply) {
  reply->data = NULL;
  reply->length = 0;
  int64_t handle = dunlin_chain_call(function, strlen(function), input, length);
  return handle < 0 ? handle : dunlin_join((uint32_t)handle, DUNLIN_FOREVER, reply);
}

/* Starts a call and gives its handle. `flags` is 0 or DUNLIN_DETACHED. */
static inline int64_t dunlin_spawn(const char *function, const void *input, size_t length,
                                   uint32_t flags) {
  return dunlin_chain_spawn(function, strlen(function), input, length, flags);
}

/* Waits until one of the calls has ended; gives its place in the list. */
static inline int64_t dunlin_any(const uint32_t *handles, size_t count, uint64_t wait_ms) {
  return dunlin_chain_wait_any(handles, count * sizeof *handles, wait_ms);
}

/* Waits until all of the calls have ended; gives how many of them failed. */
static inline int64_t dunlin_all(const uint32_t *handles, size_t count, uint64_t wait_ms) {
  return dunlin_chain_wait_all(handles, count * sizeof *handles, wait_ms);
}

#ifdef __cplusplus
}
#endif
#endif
