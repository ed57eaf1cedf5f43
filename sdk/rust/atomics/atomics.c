/* Atomic additions for Rust, whose stable compilers turn them into plain ones on wasm32-wasip1.
 *
 * libdunlin_atomics.a is made of this, by:
 *   clang-19 --target=wasm32-wasi -O2 -c atomics.c -o atomics.o
 *   llvm-ar-19 rcsD libdunlin_atomics.a atomics.o
 */
__attribute__((target("atomics"))) unsigned long long dunlin_atomic_add(unsigned long long *at,
                                                                        unsigned long long count) {
  return __atomic_fetch_add(at, count, __ATOMIC_SEQ_CST);
}

__attribute__((target("atomics"))) unsigned long long dunlin_atomic_load(unsigned long long *at) {
  return __atomic_load_n(at, __ATOMIC_SEQ_CST);
}
