// Small models and checkpoints for this folder's tests.
#ifndef SERVICES_EXPORTER_TEST_MODEL_H_
#define SERVICES_EXPORTER_TEST_MODEL_H_

#include <map>
#include <string>
#include <vector>

#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid.h"

namespace onegrid::exporter {

// One layer, hidden 64, ff 96, 2 heads of 32 over 1 key/value head, 300 tokens.
struct TestModelOptions {
  // Of the linears: F32, Q4_0 or Q8_0 (llama.cpp's rules), IQ4_NL or MXFP4
  // (random codes).
  quant::GgmlType linears = quant::GgmlType::kF32;
  // Of the embedding: F32 or Q8_0.
  quant::GgmlType embedding = quant::GgmlType::kQ8_0;
  std::string architecture = "gemma3";
  bool nan_weight = false;
  std::string extra_tensor;  // added as a vector, if not empty
};

// A path in the test's own folder.
std::string TestPath(const std::string& name);

// Writes the source GGUF `name` and returns its path. CHECK-fails on errors.
std::string WriteTestModel(const std::string& name,
                           const TestModelOptions& options = {});

// Imports the default test model and returns the path of the on-grid GGUF.
std::string ImportTestModel();

// A folded checkpoint before it is written; a test may damage it.
struct TestFolded {
  std::map<std::string, quant::GridMatrix> matrices;  // by GGUF name
  std::map<std::string, std::vector<float>> norms;    // by GGUF name
  std::string grids;                                  // metadata, none if empty
};

// What a tuning job makes of the model in the GGUF `base`: each first code of
// each row moved by one step.
TestFolded FoldTestModel(const std::string& base);
// The same on many grids: attn_q and attn_k int8_g32, ffn_gate and ffn_up
// int2_g64, the embedding int4_g32, the rest int4_g32; ffn_norm is new.
TestFolded FoldTestModelMixed(const std::string& base);

void WriteTestFolded(const TestFolded& folded, const std::string& path);

// FoldTestModel's checkpoint and an adapter of rank 4. Paths of the files.
struct TestTuned {
  std::string folded;
  std::string adapter;
  std::string adapter_config;
};
TestTuned WriteTestTuned(const std::string& base);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_TEST_MODEL_H_
