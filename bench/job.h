#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace quern::bench {

// What one run of a program took, start of the process to its end.
struct Cost {
  double seconds = 0.0;
  double cpu_seconds = 0.0;  // user and system, all threads
  double peak_mib = 0.0;
};

// Runs a command with its output in log. Throws kUsage with the end of the log when it fails.
Cost run_command(const std::vector<std::string>& command, const std::filesystem::path& log);

// Does something in a process of its own. Linux counts the peak memory of this process for every program that it starts later, so what
// needs much of it must not happen here. Throws kUsage when it fails.
void do_aside(const std::function<void()>& work);

double median(std::vector<double> values);

// Of every figure on its own.
Cost median(const std::vector<Cost>& costs);

}  // namespace quern::bench
