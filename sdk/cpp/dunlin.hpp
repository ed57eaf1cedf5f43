/* State and calls of other functions, for C++17 and later; header-only, no exceptions needed.
 *
 * What may fail gives a dunlin::Result: a value or a dunlin::Error. Locks and calls are given back
 * where their object ends. Compile with -I sdk/c -I sdk/cpp; dunlin_objects.hpp has data objects.
 */
#ifndef DUNLIN_HPP
#define DUNLIN_HPP

#include <dunlin.h>

#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dunlin {

/* Why something failed. */
class Error {
 public:
  explicit Error(int64_t code, std::string problem = {})
      : code_(code), problem_(std::move(problem)) {}

  /* An `enum dunlin_error`. */
  int64_t code() const { return code_; }
  const char *what() const { return dunlin_strerror(code_); }
  /* Why a called function failed; empty for other errors. */
  const std::string &problem() const { return problem_; }

 private:
  int64_t code_;
  std::string problem_;
};

/* A value, or why there is none. */
template <class T>
class Result {
 public:
  Result(T value) : value_(std::move(value)) {}
  Result(Error error) : error_(std::move(error)) {}

  explicit operator bool() const { return value_.has_value(); }
  bool ok() const { return value_.has_value(); }

  /* The value; ends the function where there is none. */
  T &value() & {
    if (!value_) std::abort();
    return *value_;
  }
  T &&value() && {
    if (!value_) std::abort();
    return std::move(*value_);
  }
  T &operator*() & { return value(); }
  T *operator->() { return &value(); }

  /* The error; ends the function where there is none. */
  const Error &error() const {
    if (!error_) std::abort();
    return *error_;
  }
  /* The code of the error; 0 where there is none. */
  int64_t code() const { return error_ ? error_->code() : 0; }

 private:
  std::optional<T> value_;
  std::optional<Error> error_;
};

/* The number that a call gave. */
inline Result<uint64_t> result_of(int64_t code) {
  if (code < 0) return Error(code);
  return static_cast<uint64_t>(code);
}

/* Memory that is shared with every function that maps it. */
template <class T>
class Span {
 public:
  Span() = default;
  Span(T *at, size_t size) : at_(at), size_(size) {}

  T *data() const { return at_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T &operator[](size_t place) const { return at_[place]; }
  T *begin() const { return at_; }
  T *end() const { return at_ + size_; }

 private:
  T *at_ = nullptr;
  size_t size_ = 0;
};

namespace state {

inline Result<uint64_t> size(std::string_view key) {
  return result_of(dunlin_state_size(key.data(), key.size()));
}

/* A whole value. */
inline Result<std::string> get(std::string_view key) {
  std::string value(4096, '\0');
  for (int tries = 0; tries < DUNLIN_GET_TRIES_MAX; tries++) {
    int64_t count = dunlin_state_get(key.data(), key.size(), value.data(), value.size());
    if (count >= 0) {
      value.resize(static_cast<size_t>(count));
      return value;
    }
    if (count != DUNLIN_E_TOO_LARGE) return Error(count);
    auto now = size(key);
    if (!now) return now.error();
    if (*now > INT32_MAX) return Error(DUNLIN_E_TOO_LARGE);
    value.resize(static_cast<size_t>(*now));
  }
  return Error(DUNLIN_E_TOO_LARGE);
}

/* Replaces a value; gives its new version. */
inline Result<uint64_t> set(std::string_view key, std::string_view value) {
  return result_of(dunlin_state_set(key.data(), key.size(), value.data(), value.size()));
}

/* Makes what was written to a value as safe as its durability says; gives the version. */
inline Result<uint64_t> push(std::string_view key) {
  return result_of(dunlin_state_push(key.data(), key.size(), 0, 0));
}

/* `count` things of a value from byte `offset` on, or all up to its end if 0. Const ones are
 * mapped to read; others to write, which makes the value long enough. */
template <class T>
Result<Span<T>> map(std::string_view key, uint64_t offset = 0, size_t count = 0) {
  constexpr bool is_read = std::is_const_v<T>;
  static_assert(std::is_trivially_copyable_v<T>, "only plain bytes can be shared");
  if (count == 0 || is_read) {
    auto there = size(key);
    if (!there) return there.error();
    uint64_t all = *there < offset ? 0 : (*there - offset) / sizeof(T);
    if (count == 0) count = static_cast<size_t>(all);
    if (count == 0) return Span<T>();
    if (is_read && count > all) return Error(DUNLIN_E_NOT_FOUND);
  }
  if (count > INT32_MAX / sizeof(T)) return Error(DUNLIN_E_TOO_LARGE);
  int64_t at = dunlin_state_map(key.data(), key.size(), offset, count * sizeof(T),
                                is_read ? DUNLIN_READ : DUNLIN_WRITE);
  if (at < 0) return Error(at);
  if (at % static_cast<int64_t>(alignof(T)) != 0) return Error(DUNLIN_E_INVALID);
  return Span<T>(reinterpret_cast<T *>(static_cast<uintptr_t>(at)), count);
}

/* A lock that is held until this ends. */
class Lock {
 public:
  static Result<Lock> take(std::string key, dunlin_lock_mode mode, uint64_t wait_ms) {
    int64_t error = dunlin_state_lock(key.data(), key.size(), mode, wait_ms, 0);
    if (error < 0) return Error(error);
    return Lock(std::move(key));
  }
  Lock(Lock &&other) noexcept : key_(std::exchange(other.key_, std::nullopt)) {}
  Lock &operator=(Lock &&other) noexcept {
    std::swap(key_, other.key_);
    return *this;
  }
  ~Lock() {
    if (key_) dunlin_state_unlock(key_->data(), key_->size());
  }

 private:
  explicit Lock(std::string key) : key_(std::move(key)) {}
  std::optional<std::string> key_;
};

inline Result<Lock> lock(std::string key, dunlin_lock_mode mode, uint64_t wait_ms) {
  return Lock::take(std::move(key), mode, wait_ms);
}

}  // namespace state

namespace chain {

/* A call that was started. Where this ends, it is cancelled, unless it has ended or is detached. */
class Call {
 public:
  explicit Call(uint32_t handle) : handle_(handle) {}
  Call(Call &&other) noexcept : handle_(std::exchange(other.handle_, std::nullopt)) {}
  Call &operator=(Call &&other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Call() {
    if (handle_) dunlin_chain_close(*handle_);
  }

  uint32_t handle() const { return *handle_; }

  /* Waits until it has ended, and takes its reply. A call that goes on (DUNLIN_E_TIMED_OUT) can be
   * waited for again; one that was taken is DUNLIN_E_NOT_FOUND. */
  Result<std::string> reply(uint64_t wait_ms = DUNLIN_FOREVER) {
    if (!handle_) return Error(DUNLIN_E_NOT_FOUND);
    dunlin_reply reply;
    int64_t error = dunlin_join(*handle_, wait_ms, &reply);
    if (error != DUNLIN_E_TIMED_OUT) handle_.reset();
    std::string text = reply.data == nullptr ? std::string() : std::string(reply.data, reply.length);
    dunlin_reply_free(&reply);
    if (error < 0) return Error(error, std::move(text));
    return text;
  }

 private:
  std::optional<uint32_t> handle_;
};

/* Calls a function and waits for its reply. */
inline Result<std::string> call(std::string_view function, std::string_view input) {
  int64_t handle = dunlin_chain_call(function.data(), function.size(), input.data(), input.size());
  if (handle < 0) return Error(handle);
  return Call(static_cast<uint32_t>(handle)).reply();
}

/* Starts a call; `flags` is 0 or DUNLIN_DETACHED. */
inline Result<Call> spawn(std::string_view function, std::string_view input, uint32_t flags = 0) {
  int64_t handle =
      dunlin_chain_spawn(function.data(), function.size(), input.data(), input.size(), flags);
  if (handle < 0) return Error(handle);
  return Call(static_cast<uint32_t>(handle));
}

inline std::vector<uint32_t> handles_of(const std::vector<Call> &calls) {
  std::vector<uint32_t> handles;
  for (const Call &call : calls) handles.push_back(call.handle());
  return handles;
}

/* Waits until one of the calls, none of them taken yet, has ended; gives its place. */
inline Result<uint64_t> any(const std::vector<Call> &calls, uint64_t wait_ms) {
  auto handles = handles_of(calls);
  return result_of(dunlin_any(handles.data(), handles.size(), wait_ms));
}

/* Waits until all of the calls, none of them taken yet, have ended; gives how many failed. */
inline Result<uint64_t> all(const std::vector<Call> &calls, uint64_t wait_ms) {
  auto handles = handles_of(calls);
  return result_of(dunlin_all(handles.data(), handles.size(), wait_ms));
}

}  // namespace chain

}  // namespace dunlin

#endif
