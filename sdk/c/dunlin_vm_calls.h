/* Generated from the table of host calls: `UPDATE_GENERATED=1 cargo nextest run -p hostcalls`. */
#ifndef DUNLIN_VM_CALLS_H
#define DUNLIN_VM_CALLS_H

#define DUNLIN_VM_NEXT 0xcea29254u
#define DUNLIN_VM_EXIT 0xf7c787e9u
#define DUNLIN_VM_GROW 0xeef6cf96u
#define DUNLIN_VM_MAP 0x9899d505u
#define DUNLIN_VM_CATCH 0xbd1d4a00u
#define DUNLIN_VM_TRAP 0xa906498eu
#define DUNLIN_VM_INPUT_SIZE 0x688e3e45u
#define DUNLIN_VM_INPUT_READ 0xf17c39e0u
#define DUNLIN_VM_OUTPUT_WRITE 0x34c03aa8u
#define DUNLIN_VM_LOG_WRITE 0xa64f68b5u

static inline int64_t dunlin_state_size(const char *key, size_t key_length) {
  return dunlin_vm_ask(0xf09f1e6au, (uint64_t)key, key_length, 0, 0, 0, 0);
}

static inline int64_t dunlin_state_get(const char *key, size_t key_length, void *out, size_t out_length) {
  return dunlin_vm_ask(0x54187b45u, (uint64_t)key, key_length, (uint64_t)out, out_length, 0, 0);
}

static inline int64_t dunlin_state_set(
    const char *key,
    size_t key_length,
    const void *value,
    size_t value_length) {
  return dunlin_vm_ask(0x6d201139u, (uint64_t)key, key_length, (uint64_t)value, value_length, 0, 0);
}

static inline int64_t dunlin_state_read(
    const char *key,
    size_t key_length,
    uint64_t offset,
    void *out,
    size_t out_length) {
  return dunlin_vm_ask(0xd84b083fu, (uint64_t)key, key_length, offset, (uint64_t)out, out_length, 0);
}

static inline int64_t dunlin_state_write(
    const char *key,
    size_t key_length,
    uint64_t offset,
    const void *data,
    size_t data_length) {
  return dunlin_vm_ask(0x469fccbeu, (uint64_t)key, key_length, offset, (uint64_t)data, data_length, 0);
}

static inline int64_t dunlin_state_add(
    const char *key,
    size_t key_length,
    uint64_t offset,
    uint64_t amount,
    void *out,
    size_t out_length) {
  return dunlin_vm_ask(0x770b0d9eu, (uint64_t)key, key_length, offset, amount, (uint64_t)out, out_length);
}

static inline int64_t dunlin_state_append(
    const char *key,
    size_t key_length,
    const void *data,
    size_t data_length) {
  return dunlin_vm_ask(0x1fe07debu, (uint64_t)key, key_length, (uint64_t)data, data_length, 0, 0);
}

static inline int64_t dunlin_state_truncate(const char *key, size_t key_length, uint64_t size) {
  return dunlin_vm_ask(0x29aa77a9u, (uint64_t)key, key_length, size, 0, 0, 0);
}

static inline int64_t dunlin_state_delete(const char *key, size_t key_length) {
  return dunlin_vm_ask(0x41f89738u, (uint64_t)key, key_length, 0, 0, 0, 0);
}

static inline int64_t dunlin_state_list(
    const char *prefix,
    size_t prefix_length,
    const char *after,
    size_t after_length,
    void *out,
    size_t out_length) {
  return dunlin_vm_ask(0xf84f1c93u, (uint64_t)prefix, prefix_length, (uint64_t)after, after_length, (uint64_t)out, out_length);
}

static inline int64_t dunlin_state_version(const char *key, size_t key_length) {
  return dunlin_vm_ask(0xb5f06245u, (uint64_t)key, key_length, 0, 0, 0, 0);
}

static inline int64_t dunlin_state_swap(
    const char *key,
    size_t key_length,
    uint64_t expected,
    const void *value,
    size_t value_length) {
  return dunlin_vm_ask(0xb1814edcu, (uint64_t)key, key_length, expected, (uint64_t)value, value_length, 0);
}

static inline int64_t dunlin_state_expire(const char *key, size_t key_length, uint64_t ttl_ms) {
  return dunlin_vm_ask(0xb5dfe224u, (uint64_t)key, key_length, ttl_ms, 0, 0, 0);
}

static inline int64_t dunlin_state_lock(
    const char *key,
    size_t key_length,
    uint32_t mode,
    uint64_t wait_ms,
    uint64_t hold_ms) {
  return dunlin_vm_ask(0x1a13e224u, (uint64_t)key, key_length, mode, wait_ms, hold_ms, 0);
}

static inline int64_t dunlin_state_unlock(const char *key, size_t key_length) {
  return dunlin_vm_ask(0x44da2833u, (uint64_t)key, key_length, 0, 0, 0, 0);
}

static inline int64_t dunlin_state_map(
    const char *key,
    size_t key_length,
    uint64_t offset,
    uint64_t len,
    uint32_t mode) {
  return dunlin_vm_ask(0xcebac1fbu, (uint64_t)key, key_length, offset, len, mode, 0);
}

static inline int64_t dunlin_state_push(const char *key, size_t key_length, uint64_t offset, uint64_t len) {
  return dunlin_vm_ask(0xba459befu, (uint64_t)key, key_length, offset, len, 0, 0);
}

static inline int64_t dunlin_state_pull(const char *key, size_t key_length, uint64_t offset, uint64_t len) {
  return dunlin_vm_ask(0xb447d114u, (uint64_t)key, key_length, offset, len, 0, 0);
}

static inline int64_t dunlin_chain_call(
    const char *function,
    size_t function_length,
    const void *input,
    size_t input_length) {
  return dunlin_vm_ask(0x2aaad1dbu, (uint64_t)function, function_length, (uint64_t)input, input_length, 0, 0);
}

static inline int64_t dunlin_chain_spawn(
    const char *function,
    size_t function_length,
    const void *input,
    size_t input_length,
    uint32_t flags) {
  return dunlin_vm_ask(0xd599304eu, (uint64_t)function, function_length, (uint64_t)input, input_length, flags, 0);
}

static inline int64_t dunlin_chain_wait(uint32_t handle, uint64_t wait_ms) {
  return dunlin_vm_ask(0x9ed60d72u, handle, wait_ms, 0, 0, 0, 0);
}

static inline int64_t dunlin_chain_wait_any(const void *handles, size_t handles_length, uint64_t wait_ms) {
  return dunlin_vm_ask(0xa77b4447u, (uint64_t)handles, handles_length, wait_ms, 0, 0, 0);
}

static inline int64_t dunlin_chain_wait_all(const void *handles, size_t handles_length, uint64_t wait_ms) {
  return dunlin_vm_ask(0x967fa6b2u, (uint64_t)handles, handles_length, wait_ms, 0, 0, 0);
}

static inline int64_t dunlin_chain_size(uint32_t handle) {
  return dunlin_vm_ask(0xc483ee0au, handle, 0, 0, 0, 0, 0);
}

static inline int64_t dunlin_chain_read(uint32_t handle, uint64_t offset, void *out, size_t out_length) {
  return dunlin_vm_ask(0xac2fd7dfu, handle, offset, (uint64_t)out, out_length, 0, 0);
}

static inline int64_t dunlin_chain_problem(uint32_t handle, void *out, size_t out_length) {
  return dunlin_vm_ask(0x330cc52au, handle, (uint64_t)out, out_length, 0, 0, 0);
}

static inline int64_t dunlin_chain_id(uint32_t handle, void *out, size_t out_length) {
  return dunlin_vm_ask(0xc4931626u, handle, (uint64_t)out, out_length, 0, 0, 0);
}

static inline int64_t dunlin_chain_close(uint32_t handle) {
  return dunlin_vm_ask(0xcc9b67b1u, handle, 0, 0, 0, 0, 0);
}

#endif
