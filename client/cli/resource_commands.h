// Commands that take a resource of any kind: get, list, watch, cancel.
#ifndef CLIENT_CLI_RESOURCE_COMMANDS_H_
#define CLIENT_CLI_RESOURCE_COMMANDS_H_

#include <CLI/CLI.hpp>

#include "client/cli/program.h"

namespace onegrid::cli {

// Adds them to `app`. Both must live until the command has run.
void AddResourceCommands(CLI::App& app, Program& program);

}  // namespace onegrid::cli

#endif  // CLIENT_CLI_RESOURCE_COMMANDS_H_
