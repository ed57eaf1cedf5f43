// Counts words: the request's body is text, the reply lists its commonest words.
//
// usage: wordcount [N]      text on stdin; N lines "count word" (10 unless told) and a summary line
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace {

using Counts = std::unordered_map<std::string, long>;

// Letters, digits, bytes of UTF-8 sequences and inner apostrophes make a word.
bool belongs(unsigned char byte) {
  return std::isalnum(byte) != 0 || byte == '\'' || byte >= 0x80;
}

Counts count_words(std::istream &from) {
  Counts counts;
  std::string word;
  auto finish = [&] {
    while (!word.empty() && word.back() == '\'') word.pop_back();
    if (!word.empty()) ++counts[word];
    word.clear();
  };
  std::istreambuf_iterator<char> byte(from), end;
  for (; byte != end; ++byte) {
    auto value = static_cast<unsigned char>(*byte);
    if (!belongs(value) || (word.empty() && value == '\'')) finish();
    else word.push_back(static_cast<char>(std::tolower(value)));
  }
  finish();
  return counts;
}

std::vector<std::pair<std::string, long>> commonest(const Counts &counts, std::size_t limit) {
  std::vector<std::pair<std::string, long>> words(counts.begin(), counts.end());
  limit = std::min(limit, words.size());
  std::partial_sort(words.begin(), words.begin() + static_cast<long>(limit), words.end(),
                    [](const auto &a, const auto &b) {
                      return a.second != b.second ? a.second > b.second : a.first < b.first;
                    });
  words.resize(limit);
  return words;
}

}  // namespace

int main(int argc, char **argv) {
  std::ios::sync_with_stdio(false);
  long limit = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 10;
  if (limit <= 0) {
    std::cerr << "wordcount: N must be a positive number\n";
    return 2;
  }
  Counts counts = count_words(std::cin);
  long total = 0;
  for (const auto &entry : counts) total += entry.second;
  for (const auto &[word, count] : commonest(counts, static_cast<std::size_t>(limit)))
    std::cout << std::setw(8) << count << ' ' << word << '\n';
  std::cout << total << " words, " << counts.size() << " different\n";
  return 0;
}
