// Pipeline files: YAML that says what `onegrid run` does.
#ifndef CLIENT_CLI_PIPELINE_FILE_H_
#define CLIENT_CLI_PIPELINE_FILE_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/dataset.pb.h"
#include "proto/onegrid/v1/pipeline.pb.h"

namespace onegrid::cli {

// The names of dataset formats, in files and flags, lower case.
const std::map<std::string, v1::DatasetFormat>& DatasetFormats();

// A parsed pipeline file. Paths are absolute.
struct PipelineFile {
  // Name of the run; also the id of the deployment.
  std::string name;
  std::string base_model_id;
  std::string base_model_path;
  std::string dataset_id;
  std::string train_path;
  std::string validation_path;
  std::string test_path;
  // Of the lines; default: what the first line of each split is.
  v1::DatasetFormat dataset_format = v1::DATASET_FORMAT_UNSPECIFIED;
  bool drop_invalid = false;
  std::string probe_text_path;
  // LoRA to begin with, a PEFT folder or a GGUF; empty: none.
  std::string adapter_path;
  // See InitialAdapter.keep.
  bool keep_adapter = false;
  // Answered by the served model at the end.
  std::vector<std::string> prompts;
  // Everything that goes to the controller but names, blobs and ids.
  v1::PipelineRun run;
};

// Reads YAML text. Relative paths are taken from `folder`. `overrides` are
// "section.key=value" and replace or add single values.
// InvalidArgument (PIPELINE_FILE_INVALID; metadata: line, key): not YAML, a
// section or key that does not exist, a value of the wrong type, a required
// key that is missing.
absl::StatusOr<PipelineFile> ParsePipelineFile(
    const std::string& text, const std::string& folder,
    const std::vector<std::string>& overrides);

}  // namespace onegrid::cli

#endif  // CLIENT_CLI_PIPELINE_FILE_H_
