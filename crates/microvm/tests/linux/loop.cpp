// Constructors run before a program waits for its input; streams go on after.
#include <iostream>
#include <map>
#include <string>

struct Table {
  std::map<std::string, int> words;
  Table() {
    for (int i = 0; i < 1000; i++) words["word" + std::to_string(i)] = i;
  }
};
static Table table;

int main() {
  std::cerr << "ready\n";
  for (std::string word; std::cin >> word;) {
    try {
      const int found = table.words.at(word);
      std::cout << word << '=' << found << '\n';
    } catch (const std::out_of_range &) {
      std::cout << word << "?\n";
    }
  }
}
