#ifndef SERVICES_MODEL_MODEL_SUMMARY_H_
#define SERVICES_MODEL_MODEL_SUMMARY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "services/model/gemma_config.h"
#include "services/model/vocabulary.h"

namespace onegrid::model {

// The tensors of one type. A packed matrix and its scales are one tensor.
struct TypeSummary {
  std::string type;  // "Q4_0", "BF16", "int4_g32" (compressed-tensors), ...
  int64_t tensors = 0;
  int64_t parameters = 0;
  int64_t bytes = 0;
};

// The groups of the matrices that one grid can hold.
struct GridSummary {
  std::string grid;
  int64_t groups = 0;
  int64_t dual_exact = 0;  // whose scale quant::IsDualExact
};

// What a model's files hold.
struct ModelSummary {
  std::string
      format;  // "GGUF", "safetensors", "compressed-tensors" or "mobile"
  GemmaConfig config;
  std::string size;  // "270M", "1B", ...; empty: none of the published ones
  int64_t tensors = 0;
  int64_t parameters = 0;
  std::vector<TypeSummary> types;          // by name
  std::vector<GridSummary> grids;          // by name
  std::vector<std::string> other_tensors;  // names the architecture has not

  int64_t tokens = 0;  // of the vocabulary; 0: the files have no tokenizer
  TokenizerKind tokenizer_kind = TokenizerKind::kScores;
  std::string tokenizer_sha256;      // see TokenizerDigest
  std::string chat_template_sha256;  // empty: none
  std::string chat_format;           // that it renders; empty: not known

  // Of the inference service, one sequence of `context` tokens.
  int64_t context = 0;
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
  // In what form the weights are for that: "as they are" if every matrix lies
  // in blocks that the service takes, else "imported" (int4_g32, the embedding
  // int8_g32) or, of packed matrices, "as GGUF of the same grids".
  std::string served_form;
  std::string not_served;  // why the service cannot take it; empty: it can
};

// Reads a GGUF file (any shard) or, if `path` is a folder, a Hugging Face model
// folder of a Gemma text model with float weights, compressed-tensors
// "pack-quantized" ones, or in Google's mobile layout (quant_method "gemma").
// Reads all scales, so each matrix on a grid once. context_tokens: bounded by
// the model's own context. Errors: those of GgufFile::Open, ConfigFromGguf,
// ConfigFromHfJson, SafetensorsFolder::Open, VocabularyFromGguf and
// ReadHfVocabulary (but files without a tokenizer are no error); DataLoss
// (CORRUPT_FILE): a scale that is not finite, or packed tensors that contradict
// each other or config.json; InvalidArgument (UNSUPPORTED_TENSOR): a matrix in
// another form; Unimplemented (UNSUPPORTED_QUANTIZATION): another quant_method,
// or zero points.
absl::StatusOr<ModelSummary> SummarizeModel(const std::string& path,
                                            int64_t context_tokens);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_MODEL_SUMMARY_H_
