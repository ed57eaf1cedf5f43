/* Generated from the table of host calls: `UPDATE_GENERATED=1 cargo nextest run -p hostcalls`. */
#ifndef DUNLIN_CALLS_H
#define DUNLIN_CALLS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a call answers that failed. Any other negative number is one too. */
enum dunlin_error {
  /* The function was not granted this: see `allow` in its manifest. */
  DUNLIN_E_DENIED = -1,
  /* There is nothing of this name. */
  DUNLIN_E_NOT_FOUND = -2,
  /* An argument is out of its range or malformed. */
  DUNLIN_E_INVALID = -3,
  /* Someone else was first: the version, or the lock, is another's. */
  DUNLIN_E_CONFLICT = -4,
  /* It does not fit the buffer, or is over a limit on its size. */
  DUNLIN_E_TOO_LARGE = -5,
  /* A quota of the function, its app or the node is used up. */
  DUNLIN_E_EXHAUSTED = -6,
  /* The time to wait is over. */
  DUNLIN_E_TIMED_OUT = -7,
  /* What was asked for broke off: a function that was called failed. */
  DUNLIN_E_FAILED = -8,
  /* The platform could not do it, through no fault of the guest. */
  DUNLIN_E_UNAVAILABLE = -9,
};

/* What an error means, as a sentence. */
static inline const char *dunlin_strerror(int64_t error) {
  switch (error) {
    case DUNLIN_E_DENIED:
      return "The function was not granted this: see `allow` in its manifest.";
    case DUNLIN_E_NOT_FOUND:
      return "There is nothing of this name.";
    case DUNLIN_E_INVALID:
      return "An argument is out of its range or malformed.";
    case DUNLIN_E_CONFLICT:
      return "Someone else was first: the version, or the lock, is another's.";
    case DUNLIN_E_TOO_LARGE:
      return "It does not fit the buffer, or is over a limit on its size.";
    case DUNLIN_E_EXHAUSTED:
      return "A quota of the function, its app or the node is used up.";
    case DUNLIN_E_TIMED_OUT:
      return "The time to wait is over.";
    case DUNLIN_E_FAILED:
      return "What was asked for broke off: a function that was called failed.";
    case DUNLIN_E_UNAVAILABLE:
      return "The platform could not do it, through no fault of the guest.";
    default:
      return error < 0 ? "The platform refused, in a way unknown here." : "No error.";
  }
}

#ifndef __wasm__
#include "dunlin_vm.h"
#else

#define DUNLIN_IMPORT(name) __attribute__((import_module("dunlin"), import_name(name)))

/* How long the request body is. Gives the size in bytes. */
DUNLIN_IMPORT("input_size")
int32_t dunlin_input_size(void);

/* Copies part of the request body. Gives how many bytes were copied. */
DUNLIN_IMPORT("input_read")
int32_t dunlin_input_read(int32_t offset, void *out, int32_t out_length);

/* Adds to the reply. Gives 0, or -1 if the reply would pass its limit. */
DUNLIN_IMPORT("output_write")
int32_t dunlin_output_write(const void *data, int32_t data_length);

/* Writes one log line. */
DUNLIN_IMPORT("log_write")
void dunlin_log_write(int32_t level, const void *data, int32_t data_length);

/* How long the value of a key is. Gives the size in bytes. */
DUNLIN_IMPORT("state_size")
int64_t dunlin_state_size(const char *key, size_t key_length);

/* Copies a whole value, as of one moment. `too-large` if it does not fit: nothing is copied then.
 * Gives the size in bytes, all of which were copied. */
DUNLIN_IMPORT("state_get")
int64_t dunlin_state_get(const char *key, size_t key_length, void *out, size_t out_length);

/* Replaces a value, creating the key if need be. Where the grant says `durable`, it is on disk when
 * the call returns. Gives the new version. */
DUNLIN_IMPORT("state_set")
int64_t dunlin_state_set(
    const char *key,
    size_t key_length,
    const void *value,
    size_t value_length);

/* Copies part of a value. Gives how many bytes were copied; less than asked at the end. */
DUNLIN_IMPORT("state_read")
int64_t dunlin_state_read(
    const char *key,
    size_t key_length,
    uint64_t offset,
    void *out,
    size_t out_length);

/* Writes part of a value, which grows if need be; a gap is zeros. Durable keys have it on disk
 * after the next `state_push`. Gives the new version. */
DUNLIN_IMPORT("state_write")
int64_t dunlin_state_write(
    const char *key,
    size_t key_length,
    uint64_t offset,
    const void *data,
    size_t data_length);

/* Adds to a number of 8 bytes, little-endian, in one step: no addition is lost, whether others add
 * by this call or by atomic instructions in a mapping. The sum wraps. A value that ends before has
 * zeros there. Of a durable value, this is safe after the next `state_push`. `too-large` also if
 * `out` has fewer than 8 bytes: nothing is added then. Gives 8, the bytes of the sum. */
DUNLIN_IMPORT("state_add")
int64_t dunlin_state_add(
    const char *key,
    size_t key_length,
    uint64_t offset,
    uint64_t amount,
    void *out,
    size_t out_length);

/* Adds to the end of a value. Appends of several functions do not mix. Gives the offset at which
 * the data begin. */
DUNLIN_IMPORT("state_append")
int64_t dunlin_state_append(
    const char *key,
    size_t key_length,
    const void *data,
    size_t data_length);

/* Makes a value shorter, or longer with zeros. Gives the new version. */
DUNLIN_IMPORT("state_truncate")
int64_t dunlin_state_truncate(const char *key, size_t key_length, uint64_t size);

/* Removes a key. Sandboxes that have it mapped keep the bytes they see until they are reset. Gives
 * 0. */
DUNLIN_IMPORT("state_delete")
int64_t dunlin_state_delete(const char *key, size_t key_length);

/* Writes the names of keys in order, each followed by a newline, as many as fit. Gives how many
 * bytes were written. */
DUNLIN_IMPORT("state_list")
int64_t dunlin_state_list(
    const char *prefix,
    size_t prefix_length,
    const char *after,
    size_t after_length,
    void *out,
    size_t out_length);

/* The version of a value: it changes with every change, and none comes twice. Gives the version. */
DUNLIN_IMPORT("state_version")
int64_t dunlin_state_version(const char *key, size_t key_length);

/* Replaces a value if nobody changed it since `expected`: compare and swap. Gives the new version. */
DUNLIN_IMPORT("state_swap")
int64_t dunlin_state_swap(
    const char *key,
    size_t key_length,
    uint64_t expected,
    const void *value,
    size_t value_length);

/* Sets when a key goes by itself. Gives 0. */
DUNLIN_IMPORT("state_expire")
int64_t dunlin_state_expire(const char *key, size_t key_length, uint64_t ttl_ms);

/* Takes the lock of a key, which need not exist. First come, first served. It is free again when it
 * is unlocked, when its time is over, or when the invocation ends. Gives 0. */
DUNLIN_IMPORT("state_lock")
int64_t dunlin_state_lock(
    const char *key,
    size_t key_length,
    uint32_t mode,
    uint64_t wait_ms,
    uint64_t hold_ms);

/* Gives a lock back. `not-found` if the invocation does not hold it, which may be because its time
 * was over. Gives 0. */
DUNLIN_IMPORT("state_unlock")
int64_t dunlin_state_unlock(const char *key, size_t key_length);

/* Makes the bytes of a value part of the sandbox's own memory, until it ends: no copy, and what one
 * function writes, others on the node see. To write, the value is made at least `offset + len`
 * long. A mapping to read shows the live bytes; writing to it is an error that ends the call. Gives
 * the address of the byte at `offset`. */
DUNLIN_IMPORT("state_map")
int64_t dunlin_state_map(
    const char *key,
    size_t key_length,
    uint64_t offset,
    uint64_t len,
    uint32_t mode);

/* Makes what was written to part of a value as safe as its durability says: of a durable key, the
 * chunks that changed are on disk when the call returns. Gives the version that is safe now. */
DUNLIN_IMPORT("state_push")
int64_t dunlin_state_push(const char *key, size_t key_length, uint64_t offset, uint64_t len);

/* Loads part of a value to the node, so that reading it does not wait. Gives the version that was
 * loaded. */
DUNLIN_IMPORT("state_pull")
int64_t dunlin_state_pull(const char *key, size_t key_length, uint64_t offset, uint64_t len);

/* Calls a function and waits until it has ended, well or badly: see `chain_size`. Gives a handle on
 * the reply. */
DUNLIN_IMPORT("chain_call")
int64_t dunlin_chain_call(
    const char *function,
    size_t function_length,
    const void *input,
    size_t input_length);

/* Starts a call and goes on. Unless it is detached, it is cancelled when the caller ends. Gives a
 * handle on the call. */
DUNLIN_IMPORT("chain_spawn")
int64_t dunlin_chain_spawn(
    const char *function,
    size_t function_length,
    const void *input,
    size_t input_length,
    uint32_t flags);

/* Waits for a call. `failed` if it ended badly, `timed-out` if it goes on. Gives 0: it ended well. */
DUNLIN_IMPORT("chain_wait")
int64_t dunlin_chain_wait(uint32_t handle, uint64_t wait_ms);

/* Waits until one of several calls has ended. Gives the place in the list of one that has ended. */
DUNLIN_IMPORT("chain_wait_any")
int64_t dunlin_chain_wait_any(const void *handles, size_t handles_length, uint64_t wait_ms);

/* Waits until all of several calls have ended. Gives how many of them failed. */
DUNLIN_IMPORT("chain_wait_all")
int64_t dunlin_chain_wait_all(const void *handles, size_t handles_length, uint64_t wait_ms);

/* How long a reply is. `failed` if the call ended badly, `timed-out` if it goes on. Gives the size
 * of the reply in bytes. */
DUNLIN_IMPORT("chain_size")
int64_t dunlin_chain_size(uint32_t handle);

/* Copies part of a reply. Gives how many bytes were copied; less than asked at the end. */
DUNLIN_IMPORT("chain_read")
int64_t dunlin_chain_read(uint32_t handle, uint64_t offset, void *out, size_t out_length);

/* Why a call failed, as text cut to fit; nothing if it ended well. Gives how many bytes were
 * copied. */
DUNLIN_IMPORT("chain_problem")
int64_t dunlin_chain_problem(uint32_t handle, void *out, size_t out_length);

/* The invocation's id: 32 hexadecimal digits. Gives how many bytes were copied. */
DUNLIN_IMPORT("chain_id")
int64_t dunlin_chain_id(uint32_t handle, void *out, size_t out_length);

/* Forgets a call and its reply. One that still runs is cancelled, unless it is detached. Gives 0. */
DUNLIN_IMPORT("chain_close")
int64_t dunlin_chain_close(uint32_t handle);

#endif

#ifdef __cplusplus
}
#endif
#endif
