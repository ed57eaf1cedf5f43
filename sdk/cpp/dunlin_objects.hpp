/* Data objects for C++17 and later: views on state, which functions of an app share without copies.
 *
 * Those of dunlin_objects.h, with the errors and the life times of C++.
 */
#ifndef DUNLIN_OBJECTS_HPP
#define DUNLIN_OBJECTS_HPP

#include <dunlin_objects.h>

#include <memory>

#include "dunlin.hpp"

namespace dunlin {

/* One number, added to by one instruction that is atomic across sandboxes. */
class Counter {
 public:
  static Result<Counter> open(const std::string &key) {
    Counter counter;
    int64_t error = dunlin_counter_open(&counter.raw_, key.c_str());
    if (error < 0) return Error(error);
    return counter;
  }
  /* Adds; gives what it was before. */
  uint64_t add(uint64_t count) { return dunlin_counter_add(&raw_, count); }
  uint64_t value() const { return dunlin_counter_value(&raw_); }

 private:
  Counter() = default;
  dunlin_counter raw_{};
};

namespace detail {

/* The C functions for a type of number. */
template <class T>
struct Dense;

#define DUNLIN_DENSE_OF(type, name)                                               \
  template <>                                                                     \
  struct Dense<type> {                                                            \
    using Matrix = dunlin_matrix_##name;                                          \
    using Sparse = dunlin_sparse_##name;                                          \
    static constexpr auto matrix_make = dunlin_matrix_##name##_make;              \
    static constexpr auto matrix_open = dunlin_matrix_##name##_open;              \
    static constexpr auto sparse_make = dunlin_sparse_##name##_make;              \
    static constexpr auto sparse_open = dunlin_sparse_##name##_open;              \
    static constexpr auto sparse_at = dunlin_sparse_##name##_at;                  \
  };
DUNLIN_DENSE_OF(double, f64)
DUNLIN_DENSE_OF(float, f32)
#undef DUNLIN_DENSE_OF

}  // namespace detail

/* A vector: a Span of numbers, const ones to read. `length` 0 is as long as it is. */
template <class T>
Result<Span<T>> open_vector(std::string_view key, size_t length = 0) {
  return state::map<T>(key, 0, length);
}

/* Rows of numbers, one after the other; of const ones to read. */
template <class T>
class Matrix {
  using Of = detail::Dense<std::remove_const_t<T>>;

 public:
  /* Opens a matrix to write, which is made of zeros unless it is there. */
  static Result<Matrix> make(const std::string &key, uint64_t rows, uint64_t cols) {
    static_assert(!std::is_const_v<T>, "a matrix is made to be written");
    typename Of::Matrix raw;
    int64_t error = Of::matrix_make(&raw, key.c_str(), rows, cols);
    if (error < 0) return Error(error);
    return Matrix(raw.at, raw.rows, raw.cols);
  }
  /* Opens a matrix that is there. */
  static Result<Matrix> open(const std::string &key) {
    typename Of::Matrix raw;
    auto access = std::is_const_v<T> ? DUNLIN_READ : DUNLIN_WRITE;
    int64_t error = Of::matrix_open(&raw, key.c_str(), access);
    if (error < 0) return Error(error);
    return Matrix(raw.at, raw.rows, raw.cols);
  }
  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  Span<T> row(size_t row) const { return Span<T>(at_ + row * cols_, cols_); }
  T &operator()(size_t row, size_t col) const { return at_[row * cols_ + col]; }

 private:
  Matrix(T *at, uint64_t rows, uint64_t cols)
      : at_(at), rows_(static_cast<size_t>(rows)), cols_(static_cast<size_t>(cols)) {}
  T *at_;
  size_t rows_, cols_;
};

/* A sparse matrix by compressed rows. */
template <class T>
class Sparse {
  using Of = detail::Dense<T>;

 public:
  /* Makes a matrix with room for `count` numbers, for the caller to fill in: starts(), columns(),
   * values(). Nobody can open it before publish(). What was under the key is gone. */
  static Result<Sparse> make(std::string key, uint64_t rows, uint64_t cols, uint64_t count) {
    Sparse sparse(std::move(key));
    int64_t error = Of::sparse_make(&sparse.raw_, sparse.key_.c_str(), rows, cols, count);
    if (error < 0) return Error(error);
    return sparse;
  }
  /* Opens a matrix that is there and complete, to read. */
  static Result<Sparse> open(std::string key) {
    Sparse sparse(std::move(key));
    int64_t error = Of::sparse_open(&sparse.raw_, sparse.key_.c_str(), DUNLIN_READ);
    if (error < 0) return Error(error);
    return sparse;
  }
  size_t rows() const { return static_cast<size_t>(raw_.rows); }
  size_t cols() const { return static_cast<size_t>(raw_.cols); }
  Span<uint64_t> starts() { return Span<uint64_t>(raw_.starts, rows() + 1); }
  Span<uint32_t> columns() { return Span<uint32_t>(raw_.columns, count()); }
  Span<T> values() { return Span<T>(raw_.values, count()); }
  /* The number at a place; 0 where none is kept. */
  T at(size_t row, uint32_t col) const { return Of::sparse_at(&raw_, row, col); }
  /* Lets others open it. */
  Result<uint64_t> publish() { return result_of(dunlin_sparse_publish(key_.c_str())); }

 private:
  explicit Sparse(std::string key) : key_(std::move(key)) {}
  size_t count() const { return static_cast<size_t>(raw_.count); }
  std::string key_;
  typename Of::Sparse raw_{};
};

/* Records of one size, only ever added to. */
class List {
 public:
  List(std::string key, uint32_t record_bytes)
      : key_(std::move(key)), record_bytes_(record_bytes) {}

  /* Adds a record; gives its place. One of another size is DUNLIN_E_INVALID. */
  Result<uint64_t> add(std::string_view record) {
    if (record.size() != record_bytes_ || record_bytes_ == 0) return Error(DUNLIN_E_INVALID);
    dunlin_list list = raw();
    return result_of(dunlin_list_add(&list, record.data()));
  }
  Result<uint64_t> size() const {
    dunlin_list list = raw();
    return result_of(dunlin_list_length(&list));
  }
  Result<std::string> at(uint64_t place) const {
    std::string record(record_bytes_, '\0');
    dunlin_list list = raw();
    int64_t error = dunlin_list_at(&list, place, record.data());
    if (error < 0) return Error(error);
    return record;
  }
  /* The records that are there now, as memory, one after the other. */
  Result<Span<const char>> view() const {
    dunlin_list list = raw();
    const void *records = nullptr;
    int64_t count = dunlin_list_view(&list, &records);
    if (count < 0) return Error(count);
    size_t bytes = static_cast<size_t>(count) * record_bytes_;
    return Span<const char>(static_cast<const char *>(records), bytes);
  }

 private:
  dunlin_list raw() const { return dunlin_list{key_.c_str(), record_bytes_}; }
  std::string key_;
  uint32_t record_bytes_;
};

/* A hash table of keys and values of bounded size. */
class Dictionary {
 public:
  /* The dictionary while its lock is held. */
  class Locked {
   public:
    /* The value of a name, in the dictionary's own memory. */
    std::optional<std::string_view> get(std::string_view name) {
      const void *value = nullptr;
      int64_t size = dunlin_dict_get(raw_, name.data(), name.size(), &value);
      if (size < 0) return std::nullopt;
      return std::string_view(static_cast<const char *>(value), static_cast<size_t>(size));
    }
    /* Sets the value of a name; DUNLIN_E_DENIED under a shared lock. */
    Result<uint64_t> put(std::string_view name, std::string_view value) {
      if (!writable_) return Error(DUNLIN_E_DENIED);
      return result_of(
          dunlin_dict_put(raw_, name.data(), name.size(), value.data(), value.size()));
    }
    /* Takes a name out; DUNLIN_E_NOT_FOUND if it is not there. */
    Result<uint64_t> remove(std::string_view name) {
      if (!writable_) return Error(DUNLIN_E_DENIED);
      return result_of(dunlin_dict_remove(raw_, name.data(), name.size()));
    }
    uint64_t size() const { return dunlin_dict_length(raw_); }

   private:
    friend class Dictionary;
    Locked(dunlin_dict *raw, bool writable, state::Lock lock)
        : raw_(raw), writable_(writable), lock_(std::move(lock)) {}
    dunlin_dict *raw_;
    bool writable_;
    state::Lock lock_;
  };

  /* Opens a dictionary to write, which is made empty unless it is there. */
  static Result<Dictionary> make(std::string key, uint32_t key_bytes_max,
                                 uint32_t value_bytes_max) {
    Dictionary dictionary(std::move(key));
    int64_t error = dunlin_dict_make(dictionary.raw_.get(), dictionary.key_->c_str(),
                                     key_bytes_max, value_bytes_max);
    if (error < 0) return Error(error);
    return dictionary;
  }
  /* Opens a dictionary that is there. */
  static Result<Dictionary> open(std::string key, dunlin_access access) {
    Dictionary dictionary(std::move(key));
    int64_t error = dunlin_dict_open(dictionary.raw_.get(), dictionary.key_->c_str(), access);
    if (error < 0) return Error(error);
    return dictionary;
  }
  /* Takes the lock: alone to write, or with others to read. This must outlive what it gives. */
  Result<Locked> lock(dunlin_lock_mode mode, uint64_t wait_ms) {
    auto lock = state::lock(*key_, mode, wait_ms);
    if (!lock) return lock.error();
    bool writable = mode == DUNLIN_EXCLUSIVE && raw_->access == DUNLIN_WRITE;
    return Locked(raw_.get(), writable, std::move(*lock));
  }

 private:
  explicit Dictionary(std::string key)
      : key_(std::make_unique<std::string>(std::move(key))),
        raw_(std::make_unique<dunlin_dict>()) {}
  std::unique_ptr<std::string> key_;
  std::unique_ptr<dunlin_dict> raw_;
};

}  // namespace dunlin

#endif
