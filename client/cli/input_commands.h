// Commands for what a job starts from: model, dataset.
#ifndef CLIENT_CLI_INPUT_COMMANDS_H_
#define CLIENT_CLI_INPUT_COMMANDS_H_

#include <CLI/CLI.hpp>

#include "client/cli/program.h"

namespace onegrid::cli {

// Add them to `app`. Both arguments must live until the command has run.
void AddModel(CLI::App& app, Program& program);
void AddDataset(CLI::App& app, Program& program);

}  // namespace onegrid::cli

#endif  // CLIENT_CLI_INPUT_COMMANDS_H_
