// `onegrid run`: a whole pipeline file, from import to three answers.
#ifndef CLIENT_CLI_RUN_PIPELINE_H_
#define CLIENT_CLI_RUN_PIPELINE_H_

#include <string>

#include "absl/status/status.h"
#include "client/cli/api.h"
#include "client/cli/jobs.h"
#include "client/cli/pipeline_file.h"

namespace onegrid::cli {

struct RunOptions {
  // Folder for report.json and the exported files; made if missing.
  std::string out_dir;
  // Print the report as JSON instead of a table.
  bool json = false;
};

// Imports the base model and uploads the dataset unless they are there, runs
// the pipeline, downloads the exports, asks the file's prompts of the served
// model, prints the report and writes out_dir/report.json.
// Run again after an interruption it goes on with the same run: the run's id
// is the file's name.
absl::Status RunPipeline(Api& api, const PipelineFile& file,
                         const RunOptions& options, const ProgressSink& sink);

}  // namespace onegrid::cli

#endif  // CLIENT_CLI_RUN_PIPELINE_H_
