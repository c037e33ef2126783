// The README.md of an exported model: what the Hugging Face Hub shows of it.
#ifndef SERVICES_EXPORTER_MODEL_CARD_H_
#define SERVICES_EXPORTER_MODEL_CARD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/onegrid/v1/worker.pb.h"
#include "services/exporter/grid_model.h"

namespace onegrid::exporter {

struct CardInput {
  v1::ExportFormat format = v1::EXPORT_FORMAT_UNSPECIFIED;
  std::vector<std::string> files;  // names, beside the card
  // The base as users call it, and the digest of its GGUF.
  std::string base_name;
  std::string base_sha256;
  bool tuned = true;  // else the base itself was written
  // .base_model, .tuning_job and .dataset, as far as they are known; what is
  // not set is not written.
  v1::ExportWork origin;
  // Equivalence level 1 of this format.
  int64_t tensors = 0;
  int64_t tensors_bit_exact = 0;
};

// YAML front matter (license, base_model, base_model_relation, library_name,
// pipeline_tag, tags), then Markdown: how to run the model, lineage, grids of
// its tensors, equivalence. The same input gives the same bytes. Texts that
// users chose are quoted or escaped. Thread-safe.
std::string ModelCard(const GridModel& model, const CardInput& input);

// `text` on one line such that Markdown and HTML show it as it is.
std::string MarkdownText(absl::string_view text);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_MODEL_CARD_H_
