/* Data objects for C and C++: views on state, which functions of an app share without copies.
 *
 * A counter, vectors and matrices of double and float, sparse matrices, a list of records, and a
 * dictionary. Their bytes are laid out as docs/data-objects.md says, the same in every language.
 * Each is opened by its key, which must outlive it. What fails gives a negative number, an
 * `enum dunlin_error`; a value that is something else is DUNLIN_E_INVALID.
 */
#ifndef DUNLIN_OBJECTS_H
#define DUNLIN_OBJECTS_H

#include <stdbool.h>

#include "dunlin.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The first 64 bytes of a matrix, a sparse matrix and a dictionary. */
struct dunlin_header {
  char magic[8];
  uint32_t small[2];
  uint64_t large[6];
};

/* Creates the value with this header unless it is there; gives the header that is there. */
static inline int64_t dunlin_header_make(const char *key, const struct dunlin_header *wanted,
                                         struct dunlin_header *there) {
  int64_t result = dunlin_state_swap(key, strlen(key), 0, wanted, sizeof *wanted);
  *there = *wanted;
  if (result >= 0) return 0;
  if (result != DUNLIN_E_CONFLICT) return result;
  result = dunlin_state_read(key, strlen(key), 0, there, sizeof *there);
  if (result < 0) return result;
  if (result < (int64_t)sizeof *there) return DUNLIN_E_INVALID;
  return memcmp(there->magic, wanted->magic, 8) == 0 ? 0 : DUNLIN_E_INVALID;
}

/* The header of a value that must be there, with this magic. */
static inline int64_t dunlin_header_read(const char *key, const char *magic,
                                         struct dunlin_header *there) {
  int64_t result = dunlin_state_read(key, strlen(key), 0, there, sizeof *there);
  if (result < 0) return result;
  if (result < (int64_t)sizeof *there) return DUNLIN_E_INVALID;
  return memcmp(there->magic, magic, 8) == 0 ? 0 : DUNLIN_E_INVALID;
}

/* `a * b + c`, or UINT64_MAX where that is too large for memory. */
static inline uint64_t dunlin_bytes(uint64_t a, uint64_t b, uint64_t c) {
  const uint64_t max = UINT64_C(1) << 40;
  if (c > max || (b != 0 && a > (max - c) / b)) return UINT64_MAX;
  return a * b + c;
}

/* Maps bytes that must all be there already, or are made to be there to write. */
static inline int64_t dunlin_map_all(const char *key, uint64_t length, enum dunlin_access access,
                                     char **at) {
  if (length > INT32_MAX) return DUNLIN_E_TOO_LARGE;
  int64_t error = 0;
  if (access == DUNLIN_READ) {
    int64_t size = dunlin_size(key);
    if (size < 0) return size;
    if ((uint64_t)size < length) return DUNLIN_E_NOT_FOUND;
  }
  *at = (char *)dunlin_map(key, 0, length, access, &error);
  return error;
}

/* ---- counter: one u64, added to by one instruction that is atomic across sandboxes ---- */

struct dunlin_counter {
  uint64_t *at;
};

static inline int64_t dunlin_counter_open(struct dunlin_counter *counter, const char *key) {
  char *at = NULL;
  int64_t error = dunlin_map_all(key, sizeof(uint64_t), DUNLIN_WRITE, &at);
  counter->at = (uint64_t *)(void *)at;
  return error;
}

/* Adds (a negative number, as two's complement, takes away); gives what it was before. */
__attribute__((target("atomics"))) static inline uint64_t dunlin_counter_add(
    struct dunlin_counter *counter, uint64_t count) {
  return __atomic_fetch_add(counter->at, count, __ATOMIC_SEQ_CST);
}

__attribute__((target("atomics"))) static inline uint64_t dunlin_counter_value(
    const struct dunlin_counter *counter) {
  return __atomic_load_n(counter->at, __ATOMIC_SEQ_CST);
}

/* ---- dense and sparse, of double (f64) and float (f32) ---- */

#define DUNLIN_MATRIX_MAGIC "DUNLmtx1"
#define DUNLIN_SPARSE_MAGIC "DUNLcsr1"

/* Where the parts of a sparse matrix begin, and where it ends. */
static inline uint64_t dunlin_sparse_layout(struct dunlin_header *header, uint32_t element) {
  uint64_t rows = header->large[0], count = header->large[2];
  header->large[3] = sizeof *header;
  header->large[4] = dunlin_bytes(rows + 1, 8, header->large[3]);
  if (header->large[4] == UINT64_MAX) return UINT64_MAX;
  uint64_t values = dunlin_bytes(count, 4, header->large[4]);
  if (values == UINT64_MAX) return UINT64_MAX;
  header->large[5] = (values + 7) / 8 * 8;
  return dunlin_bytes(count, element, header->large[5]);
}

#define DUNLIN_DENSE(type, name)                                                              \
  /* A row of numbers. */                                                                     \
  struct dunlin_vector_##name {                                                               \
    type *at;                                                                                 \
    uint64_t length;                                                                          \
  };                                                                                          \
                                                                                              \
  /* Opens a vector: of as many numbers as there are if `length` is 0; else of `length`, of   \
   * which new ones are 0 if it is opened to write. */                                        \
  static inline int64_t dunlin_vector_##name##_open(struct dunlin_vector_##name *vector,      \
                                                    const char *key, uint64_t length,         \
                                                    enum dunlin_access access) {              \
    char *at = NULL;                                                                          \
    if (length == 0) {                                                                        \
      int64_t size = dunlin_size(key);                                                        \
      if (size < 0) return size;                                                              \
      length = (uint64_t)size / sizeof(type);                                                 \
    }                                                                                         \
    int64_t error = length == 0 ? 0 : dunlin_map_all(                                         \
        key, dunlin_bytes(length, sizeof(type), 0), access, &at);                             \
    vector->at = (type *)(void *)at;                                                          \
    vector->length = error < 0 ? 0 : length;                                                  \
    return error;                                                                             \
  }                                                                                           \
                                                                                              \
  /* Rows of numbers, one after the other. */                                                 \
  struct dunlin_matrix_##name {                                                               \
    type *at;                                                                                 \
    uint64_t rows, cols;                                                                      \
  };                                                                                          \
                                                                                              \
  static inline int64_t dunlin_matrix_##name##_map(struct dunlin_matrix_##name *matrix,       \
                                                   const char *key,                           \
                                                   const struct dunlin_header *header,        \
                                                   enum dunlin_access access) {               \
    char *at = NULL;                                                                          \
    if (header->small[0] != sizeof(type)) return DUNLIN_E_INVALID;                            \
    matrix->rows = header->large[0];                                                          \
    matrix->cols = header->large[1];                                                          \
    uint64_t cells = dunlin_bytes(matrix->rows, matrix->cols, 0);                             \
    int64_t error = dunlin_map_all(key, dunlin_bytes(cells, sizeof(type), sizeof *header),    \
                                   access, &at);                                              \
    matrix->at = error < 0 ? NULL : (type *)(void *)(at + sizeof *header);                    \
    return error;                                                                             \
  }                                                                                           \
                                                                                              \
  /* Opens a matrix to write, which is made of zeros unless it is there; DUNLIN_E_CONFLICT    \
   * if one of another shape is there. */                                                     \
  static inline int64_t dunlin_matrix_##name##_make(struct dunlin_matrix_##name *matrix,      \
                                                    const char *key, uint64_t rows,           \
                                                    uint64_t cols) {                          \
    struct dunlin_header wanted = {DUNLIN_MATRIX_MAGIC_BYTES, {sizeof(type), 0},              \
                                   {rows, cols, 0, 0, 0, 0}}, there;                          \
    matrix->at = NULL;                                                                        \
    int64_t error = dunlin_header_make(key, &wanted, &there);                                 \
    if (error < 0) return error;                                                              \
    if (there.large[0] != rows || there.large[1] != cols) return DUNLIN_E_CONFLICT;           \
    return dunlin_matrix_##name##_map(matrix, key, &there, DUNLIN_WRITE);                     \
  }                                                                                           \
                                                                                              \
  /* Opens a matrix that is there. */                                                         \
  static inline int64_t dunlin_matrix_##name##_open(struct dunlin_matrix_##name *matrix,      \
                                                    const char *key,                          \
                                                    enum dunlin_access access) {              \
    struct dunlin_header there;                                                               \
    matrix->at = NULL;                                                                        \
    int64_t error = dunlin_header_read(key, DUNLIN_MATRIX_MAGIC, &there);                     \
    return error < 0 ? error : dunlin_matrix_##name##_map(matrix, key, &there, access);       \
  }                                                                                           \
                                                                                              \
  /* A sparse matrix by compressed rows: those of row r are starts[r] to starts[r + 1]. */    \
  struct dunlin_sparse_##name {                                                               \
    uint64_t rows, cols, count;                                                               \
    uint64_t *starts;                                                                         \
    uint32_t *columns;                                                                        \
    type *values;                                                                             \
  };                                                                                          \
                                                                                              \
  static inline int64_t dunlin_sparse_##name##_map(struct dunlin_sparse_##name *sparse,       \
                                                   const char *key,                           \
                                                   struct dunlin_header *header,              \
                                                   enum dunlin_access access) {               \
    char *at = NULL;                                                                          \
    if (header->small[0] != sizeof(type)) return DUNLIN_E_INVALID;                            \
    int64_t error = dunlin_map_all(key, dunlin_sparse_layout(header, sizeof(type)), access,   \
                                   &at);                                                      \
    if (error < 0) return error;                                                              \
    sparse->rows = header->large[0];                                                          \
    sparse->cols = header->large[1];                                                          \
    sparse->count = header->large[2];                                                         \
    sparse->starts = (uint64_t *)(void *)(at + header->large[3]);                             \
    sparse->columns = (uint32_t *)(void *)(at + header->large[4]);                            \
    sparse->values = (type *)(void *)(at + header->large[5]);                                 \
    return 0;                                                                                 \
  }                                                                                           \
                                                                                              \
  /* Makes a sparse matrix with room for `count` numbers, for the caller to fill in: starts,  \
   * columns in rising order within each row, values. Nobody can open it before               \
   * dunlin_sparse_publish(). What was under the key is gone. */                              \
  static inline int64_t dunlin_sparse_##name##_make(struct dunlin_sparse_##name *sparse,      \
                                                    const char *key, uint64_t rows,           \
                                                    uint64_t cols, uint64_t count) {          \
    struct dunlin_header header = { {0}, {sizeof(type), 4}, {rows, cols, count, 0, 0, 0}};     \
    dunlin_sparse_layout(&header, sizeof(type));                                              \
    int64_t error = dunlin_set(key, &header, sizeof header);                                  \
    return error < 0 ? error : dunlin_sparse_##name##_map(sparse, key, &header, DUNLIN_WRITE);\
  }                                                                                           \
                                                                                              \
  /* Opens a sparse matrix that is there and complete. */                                     \
  static inline int64_t dunlin_sparse_##name##_open(struct dunlin_sparse_##name *sparse,      \
                                                    const char *key,                          \
                                                    enum dunlin_access access) {              \
    struct dunlin_header there;                                                               \
    int64_t error = dunlin_header_read(key, DUNLIN_SPARSE_MAGIC, &there);                     \
    return error < 0 ? error : dunlin_sparse_##name##_map(sparse, key, &there, access);       \
  }                                                                                           \
                                                                                              \
  /* The number at a place; 0 where none is kept. */                                          \
  static inline type dunlin_sparse_##name##_at(const struct dunlin_sparse_##name *sparse,     \
                                               uint64_t row, uint32_t col) {                  \
    if (row >= sparse->rows) return 0;                                                        \
    uint64_t low = sparse->starts[row], high = sparse->starts[row + 1];                       \
    while (low < high) {                                                                      \
      uint64_t middle = low + (high - low) / 2;                                               \
      if (sparse->columns[middle] < col) low = middle + 1;                                    \
      else high = middle;                                                                     \
    }                                                                                         \
    bool found = low < sparse->starts[row + 1] && sparse->columns[low] == col;                \
    return found ? sparse->values[low] : 0;                                                   \
  }

#define DUNLIN_MATRIX_MAGIC_BYTES {'D', 'U', 'N', 'L', 'm', 't', 'x', '1'}

DUNLIN_DENSE(double, f64)
DUNLIN_DENSE(float, f32)

/* Lets others open a sparse matrix that has been filled in. */
static inline int64_t dunlin_sparse_publish(const char *key) {
  return dunlin_state_write(key, strlen(key), 0, DUNLIN_SPARSE_MAGIC, 8);
}

/* ---- list: records of one size, only ever added to ---- */

struct dunlin_list {
  const char *key;
  uint32_t record_bytes;
};

/* Adds a record; gives its place. */
static inline int64_t dunlin_list_add(const struct dunlin_list *list, const void *record) {
  int64_t at = dunlin_state_append(list->key, strlen(list->key), record, list->record_bytes);
  return at < 0 ? at : at / list->record_bytes;
}

/* How many records there are. */
static inline int64_t dunlin_list_length(const struct dunlin_list *list) {
  int64_t size = dunlin_size(list->key);
  if (size == DUNLIN_E_NOT_FOUND) return 0;
  return size < 0 ? size : size / list->record_bytes;
}

/* Copies a record; gives 0. */
static inline int64_t dunlin_list_at(const struct dunlin_list *list, uint64_t place, void *record) {
  uint64_t offset = dunlin_bytes(place, list->record_bytes, 0);
  int64_t count = dunlin_state_read(list->key, strlen(list->key), offset, record,
                                    list->record_bytes);
  if (count < 0) return count;
  return count == (int64_t)list->record_bytes ? 0 : DUNLIN_E_NOT_FOUND;
}

/* The records there are now, as memory; gives how many. */
static inline int64_t dunlin_list_view(const struct dunlin_list *list, const void **records) {
  char *at = NULL;
  int64_t length = dunlin_list_length(list);
  *records = NULL;
  if (length <= 0) return length;
  int64_t error = dunlin_map_all(list->key, dunlin_bytes((uint64_t)length, list->record_bytes, 0),
                                 DUNLIN_READ, &at);
  *records = at;
  return error < 0 ? error : length;
}

/* ---- dictionary: hash table of keys and values of bounded size ---- */

#define DUNLIN_DICT_MAGIC "DUNLdic1"

struct dunlin_dict {
  const char *key;
  enum dunlin_access access;
  /* small: the most bytes of a key, of a value; large: slots, used slots, slots at first. */
  struct dunlin_header *header;
  uint64_t mapped_bytes, slot_bytes, value_at;
};

static inline uint64_t dunlin_dict_bytes(const struct dunlin_dict *dict, uint64_t slots) {
  uint64_t before = slots - dict->header->large[2];
  return dunlin_bytes(before + slots, dict->slot_bytes, sizeof(struct dunlin_header));
}

/* The table of so many slots: each table lies after the one that it replaced. */
static inline char *dunlin_dict_slot(const struct dunlin_dict *dict, uint64_t slots, uint64_t at) {
  uint64_t place = slots - dict->header->large[2] + at;
  return (char *)dict->header + sizeof(struct dunlin_header) + place * dict->slot_bytes;
}

/* Maps the dictionary again if another function made it larger; the lock must be held. */
static inline int64_t dunlin_dict_sync(struct dunlin_dict *dict) {
  uint64_t slots = dict->header->large[0], first = dict->header->large[2];
  bool sane = first != 0 && slots >= first && (slots & (slots - 1)) == 0;
  if (!sane) return DUNLIN_E_INVALID;
  uint64_t bytes = dunlin_dict_bytes(dict, slots);
  if (bytes <= dict->mapped_bytes) return 0;
  char *at = NULL;
  int64_t error = dunlin_map_all(dict->key, bytes, dict->access, &at);
  if (error < 0) return error;
  dict->header = (struct dunlin_header *)(void *)at;
  dict->mapped_bytes = bytes;
  return 0;
}

static inline int64_t dunlin_dict_map(struct dunlin_dict *dict, const struct dunlin_header *there) {
  char *at = NULL;
  int64_t error = dunlin_map_all(dict->key, sizeof *there, dict->access, &at);
  if (error < 0) return error;
  dict->header = (struct dunlin_header *)(void *)at;
  dict->mapped_bytes = sizeof *there;
  dict->value_at = 8 + ((uint64_t)there->small[0] + 7) / 8 * 8;
  dict->slot_bytes = dict->value_at + ((uint64_t)there->small[1] + 7) / 8 * 8;
  return dunlin_dict_sync(dict);
}

/* Opens a dictionary to write, which is made empty unless it is there; DUNLIN_E_CONFLICT if one
 * with other sizes is there. */
static inline int64_t dunlin_dict_make(struct dunlin_dict *dict, const char *key,
                                       uint32_t key_bytes_max, uint32_t value_bytes_max) {
  const uint64_t slots = 64;
  struct dunlin_header wanted = { {'D', 'U', 'N', 'L', 'd', 'i', 'c', '1'},
                                  {key_bytes_max, value_bytes_max},
                                  {slots, 0, slots, 0, 0, 0}}, there;
  dict->key = key;
  dict->access = DUNLIN_WRITE;
  int64_t error = dunlin_header_make(key, &wanted, &there);
  if (error < 0) return error;
  if (memcmp(there.small, wanted.small, sizeof there.small) != 0) return DUNLIN_E_CONFLICT;
  return dunlin_dict_map(dict, &there);
}

/* Opens a dictionary that is there. */
static inline int64_t dunlin_dict_open(struct dunlin_dict *dict, const char *key,
                                       enum dunlin_access access) {
  struct dunlin_header there;
  dict->key = key;
  dict->access = access;
  int64_t error = dunlin_header_read(key, DUNLIN_DICT_MAGIC, &there);
  return error < 0 ? error : dunlin_dict_map(dict, &there);
}

static inline uint64_t dunlin_dict_hash(const void *name, size_t length) {
  const unsigned char *bytes = (const unsigned char *)name;
  uint64_t hash = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < length; i++) hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
  return hash ^ hash >> 32;
}

static inline uint32_t dunlin_dict_word(const char *slot, int word) {
  uint32_t value;
  memcpy(&value, slot + 4 * word, 4);
  return value;
}

/* The slot of a name, or the empty one where it would go; NULL in a full table. */
static inline char *dunlin_dict_find(const struct dunlin_dict *dict, uint64_t slots,
                                     const void *name, size_t length) {
  uint64_t at = dunlin_dict_hash(name, length) & (slots - 1);
  for (uint64_t step = 0; step < slots; step++, at = (at + 1) & (slots - 1)) {
    char *slot = dunlin_dict_slot(dict, slots, at);
    uint32_t tag = dunlin_dict_word(slot, 0);
    if (tag == 0) return slot;
    if (tag == length + 1 && memcmp(slot + 8, name, length) == 0) return slot;
  }
  return NULL;
}

/* The value of a name, as memory of the dictionary; gives its length. The lock must be held, at
 * least shared, as long as the value is looked at. */
static inline int64_t dunlin_dict_get(struct dunlin_dict *dict, const void *name, size_t length,
                                      const void **value) {
  int64_t error = dunlin_dict_sync(dict);
  *value = NULL;
  if (error < 0) return error;
  if (length > dict->header->small[0]) return DUNLIN_E_NOT_FOUND;
  const char *slot = dunlin_dict_find(dict, dict->header->large[0], name, length);
  if (slot == NULL || dunlin_dict_word(slot, 0) == 0) return DUNLIN_E_NOT_FOUND;
  uint32_t size = dunlin_dict_word(slot, 1);
  if (size > dict->header->small[1]) return DUNLIN_E_INVALID;
  *value = slot + dict->value_at;
  return size;
}

/* Doubles the table: the new one is filled behind the old one, and then made the one that counts,
 * so that a function that dies meanwhile leaves the old one. */
static inline int64_t dunlin_dict_grow(struct dunlin_dict *dict) {
  uint64_t old = dict->header->large[0], slots = old * 2;
  uint64_t bytes = dunlin_dict_bytes(dict, slots);
  char *at = NULL;
  int64_t error = dunlin_map_all(dict->key, bytes, DUNLIN_WRITE, &at);
  if (error < 0) return error;
  dict->header = (struct dunlin_header *)(void *)at;
  dict->mapped_bytes = bytes;
  memset(dunlin_dict_slot(dict, slots, 0), 0, (size_t)(slots * dict->slot_bytes));
  for (uint64_t i = 0; i < old; i++) {
    const char *from = dunlin_dict_slot(dict, old, i);
    uint32_t tag = dunlin_dict_word(from, 0);
    if (tag == 0) continue;
    if (tag - 1 > dict->header->small[0]) return DUNLIN_E_INVALID;
    char *to = dunlin_dict_find(dict, slots, from + 8, tag - 1);
    memcpy(to, from, (size_t)dict->slot_bytes);
  }
  dict->header->large[0] = slots;
  return 0;
}

/* Sets the value of a name; gives 0. The lock must be held exclusively. */
static inline int64_t dunlin_dict_put(struct dunlin_dict *dict, const void *name, size_t length,
                                      const void *value, size_t value_length) {
  int64_t error = dunlin_dict_sync(dict);
  if (error < 0) return error;
  struct dunlin_header *header = dict->header;
  if (length > header->small[0] || value_length > header->small[1]) return DUNLIN_E_TOO_LARGE;
  char *slot = dunlin_dict_find(dict, header->large[0], name, length);
  bool fresh = slot == NULL || dunlin_dict_word(slot, 0) == 0;
  if (fresh && (header->large[1] + 1) * 4 > header->large[0] * 3) {
    error = dunlin_dict_grow(dict);
    if (error < 0) return error;
    header = dict->header;
    slot = dunlin_dict_find(dict, header->large[0], name, length);
  }
  if (slot == NULL) return DUNLIN_E_INVALID;
  uint32_t size = (uint32_t)value_length, tag = (uint32_t)length + 1;
  memcpy(slot + dict->value_at, value, value_length);
  memcpy(slot + 4, &size, 4);
  if (!fresh) return 0;
  memcpy(slot + 8, name, length);
  memcpy(slot, &tag, 4);
  header->large[1]++;
  return 0;
}

/* Takes a name out; gives 0. The lock must be held exclusively. */
static inline int64_t dunlin_dict_remove(struct dunlin_dict *dict, const void *name,
                                         size_t length) {
  int64_t error = dunlin_dict_sync(dict);
  if (error < 0) return error;
  uint64_t slots = dict->header->large[0], mask = slots - 1;
  if (length > dict->header->small[0]) return DUNLIN_E_NOT_FOUND;
  char *hole = dunlin_dict_find(dict, slots, name, length);
  if (hole == NULL || dunlin_dict_word(hole, 0) == 0) return DUNLIN_E_NOT_FOUND;
  uint64_t at = (uint64_t)(hole - dunlin_dict_slot(dict, slots, 0)) / dict->slot_bytes, next = at;
  for (uint64_t step = 0; step < slots; step++) {
    next = (next + 1) & mask;
    char *slot = dunlin_dict_slot(dict, slots, next);
    uint32_t tag = dunlin_dict_word(slot, 0);
    if (tag == 0) break;
    if (tag - 1 > dict->header->small[0]) return DUNLIN_E_INVALID;
    /* A slot moves into the hole unless its own place lies behind the hole. */
    uint64_t own = dunlin_dict_hash(slot + 8, tag - 1) & mask;
    if (((next - own) & mask) < ((next - at) & mask)) continue;
    memcpy(dunlin_dict_slot(dict, slots, at), slot, (size_t)dict->slot_bytes);
    at = next;
  }
  memset(dunlin_dict_slot(dict, slots, at), 0, (size_t)dict->slot_bytes);
  dict->header->large[1]--;
  return 0;
}

/* How many names there are. The lock must be held, at least shared. */
static inline uint64_t dunlin_dict_length(const struct dunlin_dict *dict) {
  return dict->header->large[1];
}

#ifdef __cplusplus
}
#endif
#endif
