// Streams, exceptions, containers, a thread.
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

static int deep(int n) {
    std::string kept(100, 'x');
    if (n == 0) throw std::runtime_error("from the depth");
    return deep(n - 1) + kept.size();
}

int main() {
    std::map<std::string, int> counts;
    std::string word;
    while (std::cin >> word) counts[word]++;
    for (auto &[key, count] : counts) std::cout << key << '=' << count << '\n';
    try {
        deep(50);
    } catch (const std::exception &error) {
        std::cout << "caught " << error.what() << '\n';
    }
    try {
        std::vector<int>().at(3);
    } catch (const std::out_of_range &) {
        std::cout << "out of range\n";
    }
    int sum = 0;
    std::thread([&] { for (int i = 0; i < 1000; i++) sum += i; }).join();
    std::cout << sum << std::endl;
}
