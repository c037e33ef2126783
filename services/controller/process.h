// Starting a child process that cannot outlive the thread that starts it.
#ifndef SERVICES_CONTROLLER_PROCESS_H_
#define SERVICES_CONTROLLER_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace onegrid::controller {

// Starts argv[0] with the arguments argv, output and errors appended to
// `log_file`, input empty, in a process group of its own. The kernel kills it
// when the calling thread ends. Errors of opening the log; Internal: fork.
// A program that cannot be executed exits with 127 and says why in the log.
absl::StatusOr<pid_t> StartProcess(const std::vector<std::string>& argv,
                                   const std::string& log_file);

// "exit code 3", "killed by signal 9".
std::string DescribeExit(int wait_status);

// Last non-empty line of the file's bytes from `start`, at most 500
// characters; empty if there is none.
std::string LastLogLine(const std::string& log_file, off_t start);

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_PROCESS_H_
