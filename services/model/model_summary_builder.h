#ifndef SERVICES_MODEL_MODEL_SUMMARY_BUILDER_H_
#define SERVICES_MODEL_MODEL_SUMMARY_BUILDER_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid.h"
#include "services/model/model_summary.h"
#include "services/model/sentencepiece_model.h"

namespace onegrid::model {

// Adds up what SummaryOfGguf and SummaryOfFolder find.
class ModelSummaryBuilder {
 public:
  ModelSummaryBuilder(const std::string& format, const GemmaConfig& config) {
    summary_.format = format;
    summary_.config = config;
  }

  void AddTensor(const std::string& type, int64_t parameters, int64_t bytes);
  // A matrix of the model, by its GGUF name, is in memory what this type of
  // blocks is in a file.
  void SetServedType(const std::string& gguf_name, quant::GgmlType type) {
    served_types_[gguf_name] = type;
  }
  void AddScales(const quant::Grid& grid, absl::Span<const float> scales);
  void AddOtherTensor(const std::string& name) {
    summary_.other_tensors.push_back(name);
  }
  void SetTokenizer(const Vocabulary& vocabulary);
  // Empty: there is none.
  void SetChatTemplate(const std::string& jinja);

  // packed_form: the name of the form that keeps the grids there are, for files
  // whose matrices are not all served as they are; empty: the import puts all
  // of them on its own grids.
  ModelSummary Finish(int64_t context_tokens, const std::string& packed_form);

 private:
  ModelSummary summary_;
  std::map<std::string, TypeSummary> types_;
  std::map<std::string, GridSummary> grids_;
  std::map<std::string, quant::GgmlType> served_types_;
};

absl::StatusOr<ModelSummary> SummaryOfGguf(const std::string& path,
                                           int64_t context_tokens);
absl::StatusOr<ModelSummary> SummaryOfFolder(const std::string& folder,
                                             int64_t context_tokens);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_MODEL_SUMMARY_BUILDER_H_
