#include "bench/job.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <iostream>

#include "formats/base/error.h"
#include "formats/base/file.h"

namespace quern::bench {
namespace {

double seconds_of(const timeval& time) { return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec); }

std::string end_of(const std::filesystem::path& log) {
  const std::string text = read_text_file(log, uint64_t{1} << 30);
  return text.substr(text.size() - std::min<size_t>(text.size(), 2000));
}

}  // namespace

Cost run_command(const std::vector<std::string>& command, const std::filesystem::path& log) {
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  const auto start = std::chrono::steady_clock::now();
  pid_t process = 0;
  const int failure = posix_spawnp(&process, arguments[0], &files, nullptr, arguments.data(), environ);
  posix_spawn_file_actions_destroy(&files);
  if (failure != 0) throw Error(ErrorKind::kUsage, "cannot run " + command[0] + ": " + std::strerror(failure));
  int status = 0;
  rusage usage{};
  wait4(process, &status, 0, &usage);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::string line;
    for (const std::string& argument : command) line += argument + " ";
    throw Error(ErrorKind::kUsage, line + "failed:\n" + end_of(log));
  }
  return {elapsed.count(), seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime), static_cast<double>(usage.ru_maxrss) / 1024.0};
}

void do_aside(const std::function<void()>& work) {
  const pid_t process = fork();
  if (process < 0) throw Error(ErrorKind::kUsage, std::string("cannot start a process: ") + std::strerror(errno));
  if (process == 0) {
    try {
      work();
      _exit(0);
    } catch (const std::exception& error) {
      std::cerr << error.what() << '\n';
      _exit(1);
    }
  }
  int status = 0;
  waitpid(process, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) throw Error(ErrorKind::kUsage, "a step in a process of its own failed");
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2.0;
}

Cost median(const std::vector<Cost>& costs) {
  std::vector<double> seconds, cpu, peak;
  for (const Cost& cost : costs) {
    seconds.push_back(cost.seconds);
    cpu.push_back(cost.cpu_seconds);
    peak.push_back(cost.peak_mib);
  }
  return {median(seconds), median(cpu), median(peak)};
}

}  // namespace quern::bench
