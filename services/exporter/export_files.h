// One export: writes the formats asked for into a folder and proves level 1.
#ifndef SERVICES_EXPORTER_EXPORT_FILES_H_
#define SERVICES_EXPORTER_EXPORT_FILES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/export.pb.h"
#include "proto/onegrid/v1/worker.pb.h"
#include "services/exporter/importer.h"

namespace onegrid::exporter {

// Local inputs of an export.
struct ExportInputs {
  std::string base;            // on-grid GGUF
  std::string folded;          // folded checkpoint; empty if there is none
  std::string adapter;         // adapter safetensors
  std::string adapter_config;  // adapter_config.json
  std::string base_name;       // "gemma3-270m"
  // For the model's card: see CardInput.
  v1::ExportWork origin;
  std::vector<v1::ExportFormat> formats;  // empty: all
  // Most bytes of tensors in one file of a merged model; 0: one GGUF, and
  // kCtShardBytesDefault for compressed-tensors.
  int64_t max_shard_bytes = 0;
  // The base itself is what the merged formats hold: nothing was tuned.
  bool untuned = false;
};

// One written format: names of the files in `folder`.
struct WrittenFormat {
  v1::ExportFormat format;
  std::string folder;
  std::vector<std::string> files;
};

struct ExportOutputs {
  std::vector<WrittenFormat> formats;
  v1::EquivalenceReport equivalence;
};

// Writes below the existing folder `out`:
//   gguf/model.gguf      or its shards, model-00001-of-0000N.gguf; Modelfile
//   compressed_tensors/  config.json, model.safetensors or its shards and
//                        index, tokenizer files
//   lora_gguf/adapter.gguf
//   peft/                adapter_config.json, adapter_model.safetensors
// and in each folder the model's card, README.md,
// and re-reads the weights.
//
// Errors: INVALID_ARGUMENT (UNKNOWN_FORMAT, INVALID_SHARD_SIZE);
// FAILED_PRECONDITION (NOT_FOLDED) when a merged format of a tuned model has no
// folded checkpoint; DATA_LOSS (EQUIVALENCE_FAILED); those of the readers and
// writers.
absl::StatusOr<ExportOutputs> ExportFiles(const ExportInputs& inputs,
                                          const std::string& out,
                                          const ProgressFn& progress);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_EXPORT_FILES_H_
