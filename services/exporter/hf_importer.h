// Puts a Hugging Face model folder on the grid: safetensors, floats or packed
// (see model::HfCheckpoint), become the canonical on-grid GGUF (see importer.h
// for what is written).
#ifndef SERVICES_EXPORTER_HF_IMPORTER_H_
#define SERVICES_EXPORTER_HF_IMPORTER_H_

#include <string>

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/base_model.pb.h"
#include "services/exporter/importer.h"

namespace onegrid::exporter {

// Reads the folder `source` and writes the on-grid GGUF `out` atomically.
//
// Linears go through quant::RecoverMatrix: the bf16 weights of a
// quantization-aware-trained checkpoint get back the codes and steps they were
// rounded from; the report counts groups_on_grid, groups_snapped and
// groups_fallback, and a warning is logged if there are fallbacks. Packed ones
// keep codes and scales, in blocks of their own grid; matrices that cannot are
// named in tensors_off_grid and in the log (EncodePacked says what becomes of
// them). Activations, keys and values are quantized as they come: scales that
// the folder has for them are counted in static_scales_unused and in the log.
// The tokenizer is the folder's (model::ReadHfVocabulary says which file), or,
// with options.tokenizer_from, that of a GGUF file with as many tokens as the
// embedding has rows.
//
// Errors: those of model::HfCheckpoint::Open and model::ReadHfVocabulary;
// NOT_FOUND (MISSING_TOKENIZER): no such file, nor tokenizer_from;
// INVALID_ARGUMENT (UNSUPPORTED_TENSOR) for a value that is not finite or rows
// that are not whole groups; those of writing.
absl::StatusOr<v1::ImportReport> ImportHfFolder(const std::string& source,
                                                const std::string& out,
                                                const ImportOptions& options);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_HF_IMPORTER_H_
