/* Does what a script says, by the SDK for C++. See ../README.md. */
#include <dunlin_objects.hpp>

#include "../c/dispatch.h"

namespace {

constexpr uint64_t wait_ms = 10000;
constexpr uint64_t calls_max = 64;

uint64_t bits_of(double value) {
  uint64_t bits;
  memcpy(&bits, &value, 8);
  return bits;
}

double number_of(uint64_t bits) {
  double value;
  memcpy(&value, &bits, 8);
  return value;
}

std::string string_from(line *line) {
  bytes bytes = take_bytes(line);
  return std::string(reinterpret_cast<char *>(bytes.at), bytes.length);
}

bytes bytes_of(std::string_view text) {
  return {reinterpret_cast<unsigned char *>(const_cast<char *>(text.data())), text.size()};
}

void answer_result(line *line, const dunlin::Result<uint64_t> &result) {
  auto copy = result;
  answer(line, copy ? static_cast<int64_t>(*copy) : copy.code());
}

/* Text and its length, or an error and why a function failed. */
void answer_text(line *line, dunlin::Result<std::string> text) {
  if (text) answer_with(line, static_cast<int64_t>(text->size()), bytes_of(*text));
  else if (text.code() == DUNLIN_E_FAILED)
    answer_with(line, text.code(), bytes_of(text.error().problem()));
  else answer(line, text.code());
}

void fan(line *line, bool all) {
  std::string function = string_from(line), input = string_from(line), replies;
  uint64_t count = take_number(line);
  if (count > calls_max) line->malformed = true;
  if (!taken(line)) return;
  std::vector<dunlin::chain::Call> calls;
  for (uint64_t i = 0; i < count; i++) {
    auto call = dunlin::chain::spawn(function, input);
    if (!call) return answer(line, call.code());
    calls.push_back(std::move(*call));
  }
  if (!all) return answer_result(line, dunlin::chain::any(calls, wait_ms));
  auto failed = dunlin::chain::all(calls, wait_ms);
  if (!failed) return answer(line, failed.code());
  for (auto &call : calls) {
    auto reply = call.reply();
    if (reply) replies += *reply;
  }
  answer_with(line, static_cast<int64_t>(*failed), bytes_of(replies));
}

dunlin::Result<uint64_t> add_locked(const std::string &key, uint64_t count) {
  auto held = dunlin::state::lock(key, DUNLIN_EXCLUSIVE, wait_ms);
  if (!held) return held.error();
  uint64_t sum = 0;
  auto value = dunlin::state::get(key);
  if (value && value->size() == sizeof sum) memcpy(&sum, value->data(), sizeof sum);
  else if (value.code() != DUNLIN_E_NOT_FOUND) return dunlin::Error(value.code());
  sum += count;
  auto set = dunlin::state::set(key, {reinterpret_cast<char *>(&sum), sizeof sum});
  if (!set) return set;
  return sum;
}

void locked_add(line *line) {
  std::string key = string_from(line);
  uint64_t count = take_number(line), times = take_number(line);
  if (!taken(line)) return;
  dunlin::Result<uint64_t> result = uint64_t{0};
  for (uint64_t i = 0; i < times && result; i++) result = add_locked(key, count);
  answer_result(line, result);
}

void counter(line *line, bool add) {
  std::string key = string_from(line);
  uint64_t count = add ? take_number(line) : 0, times = add ? take_number(line) : 0, value = 0;
  if (!taken(line)) return;
  auto counter = dunlin::Counter::open(key);
  if (!counter) return answer(line, counter.code());
  if (!add) value = counter->value();
  for (uint64_t i = 0; i < times; i++) value = counter->add(count);
  answer(line, static_cast<int64_t>(value));
}

void vector(line *line, bool put) {
  std::string key = string_from(line);
  uint64_t length = put ? take_number(line) : 0, at = take_number(line);
  uint64_t bits = put ? take_number(line) : 0;
  if (!taken(line)) return;
  if (put) {
    auto vector = dunlin::open_vector<double>(key, static_cast<size_t>(length));
    if (!vector) return answer(line, vector.code());
    if (at >= vector->size()) return answer(line, DUNLIN_E_INVALID);
    (*vector)[static_cast<size_t>(at)] = number_of(bits);
    return answer(line, 0);
  }
  auto vector = dunlin::open_vector<const double>(key);
  if (!vector) return answer(line, vector.code());
  bool inside = at < vector->size();
  answer(line, inside ? static_cast<int64_t>(bits_of((*vector)[static_cast<size_t>(at)]))
                      : static_cast<int64_t>(DUNLIN_E_INVALID));
}

void matrix_put(line *line) {
  std::string key = string_from(line);
  uint64_t rows = take_number(line), cols = take_number(line);
  uint64_t row = take_number(line), col = take_number(line), bits = take_number(line);
  if (!taken(line)) return;
  auto matrix = dunlin::Matrix<double>::make(key, rows, cols);
  if (!matrix) return answer(line, matrix.code());
  if (row >= matrix->rows() || col >= matrix->cols()) return answer(line, DUNLIN_E_INVALID);
  (*matrix)(static_cast<size_t>(row), static_cast<size_t>(col)) = number_of(bits);
  answer(line, 0);
}

void matrix_at(line *line) {
  std::string key = string_from(line);
  uint64_t row = take_number(line), col = take_number(line);
  if (!taken(line)) return;
  auto matrix = dunlin::Matrix<const double>::open(key);
  if (!matrix) return answer(line, matrix.code());
  if (row >= matrix->rows() || col >= matrix->cols()) return answer(line, DUNLIN_E_INVALID);
  double value = matrix->row(static_cast<size_t>(row))[static_cast<size_t>(col)];
  answer(line, static_cast<int64_t>(bits_of(value)));
}

void sparse_put(line *line) {
  std::string key = string_from(line);
  uint64_t rows = take_number(line), cols = take_number(line), at = 0;
  bytes entries = take_bytes(line);
  if (!taken(line)) return;
  uint64_t count = entries.length / 16;
  auto sparse = dunlin::Sparse<double>::make(key, rows, cols, count);
  if (!sparse) return answer(line, sparse.code());
  for (uint32_t row = 0; row < rows; row++) {
    sparse->starts()[row] = at;
    for (; at < count; at++) {
      uint32_t place[2];
      memcpy(place, entries.at + 16 * at, 8);
      if (place[0] != row) break;
      sparse->columns()[static_cast<size_t>(at)] = place[1];
      memcpy(&sparse->values()[static_cast<size_t>(at)], entries.at + 16 * at + 8, 8);
    }
  }
  sparse->starts()[static_cast<size_t>(rows)] = at;
  answer(line, sparse->publish().code());
}

void sparse_at(line *line) {
  std::string key = string_from(line);
  uint64_t row = take_number(line), col = take_number(line);
  if (!taken(line)) return;
  auto sparse = dunlin::Sparse<double>::open(key);
  if (!sparse) return answer(line, sparse.code());
  double value = sparse->at(static_cast<size_t>(row), static_cast<uint32_t>(col));
  answer(line, static_cast<int64_t>(bits_of(value)));
}

void list(line *line, std::string_view name) {
  std::string key = string_from(line);
  if (name == "list_add") {
    std::string record = string_from(line);
    if (!taken(line)) return;
    return answer_result(line, dunlin::List(key, static_cast<uint32_t>(record.size())).add(record));
  }
  dunlin::List list(key, static_cast<uint32_t>(take_number(line)));
  uint64_t place = name == "list_at" ? take_number(line) : 0;
  if (!taken(line)) return;
  if (name == "list_at") answer_text(line, list.at(place));
  else answer_result(line, list.size());
}

void dict_put(line *line) {
  std::string key = string_from(line);
  uint64_t key_max = take_number(line), value_max = take_number(line);
  std::string name = string_from(line), value = string_from(line);
  if (!taken(line)) return;
  auto dictionary = dunlin::Dictionary::make(key, static_cast<uint32_t>(key_max),
                                             static_cast<uint32_t>(value_max));
  if (!dictionary) return answer(line, dictionary.code());
  auto locked = dictionary->lock(DUNLIN_EXCLUSIVE, wait_ms);
  answer(line, locked ? locked->put(name, value).code() : locked.code());
}

void dict(line *line, std::string_view command) {
  std::string key = string_from(line), name;
  bool remove = command == "dict_remove";
  if (command != "dict_length") name = string_from(line);
  if (!taken(line)) return;
  auto dictionary = dunlin::Dictionary::open(key, remove ? DUNLIN_WRITE : DUNLIN_READ);
  if (!dictionary) return answer(line, dictionary.code());
  auto locked = dictionary->lock(remove ? DUNLIN_EXCLUSIVE : DUNLIN_SHARED, wait_ms);
  if (!locked) return answer(line, locked.code());
  if (remove) return answer(line, locked->remove(name).code());
  if (command == "dict_length") return answer(line, static_cast<int64_t>(locked->size()));
  auto value = locked->get(name);
  if (value) answer_with(line, static_cast<int64_t>(value->size()), bytes_of(*value));
  else answer(line, DUNLIN_E_NOT_FOUND);
}

void get_or_call(line *line, bool get) {
  std::string name = string_from(line), input;
  if (!get) input = string_from(line);
  if (!taken(line)) return;
  answer_text(line, get ? dunlin::state::get(name) : dunlin::chain::call(name, input));
}

void run(line *line, const char *text) {
  if (dispatch(line, text) || touch_memory(line, text)) return;
  std::string_view name = text;
  auto is = [&](std::string_view start) { return name.substr(0, start.size()) == start; };
  if (name == "get" || name == "call") get_or_call(line, name == "get");
  else if (name == "fan" || name == "any") fan(line, name == "fan");
  else if (name == "locked_add") locked_add(line);
  else if (is("counter_")) counter(line, name == "counter_add");
  else if (is("vector_")) vector(line, name == "vector_put");
  else if (name == "matrix_put") matrix_put(line);
  else if (name == "matrix_at") matrix_at(line);
  else if (name == "sparse_put") sparse_put(line);
  else if (name == "sparse_at") sparse_at(line);
  else if (is("list_")) list(line, name);
  else if (name == "dict_put") dict_put(line);
  else if (is("dict_")) dict(line, name);
  else {
    line->malformed = true;
    taken(line);
  }
}

}  // namespace

extern "C" DUNLIN_HANDLE handle(void) { return run_script(run); }
