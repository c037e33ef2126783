// Linears under training on their grids: what the forward pass multiplies by is
// at every step the dequantized value of codes and dual-exact scales, the model
// that will be served.
//
// Of each linear may be trained:
// - its scales: a float32 relative move of each, snapped in the forward pass
//   (PEQA, arXiv 2305.14152; LSQ's gradient, arXiv 1902.08153, through
//   SnapScale by the straight-through estimator). LSQ's gradient factor is left
//   out: AdamW does not see the size of a gradient;
// - a low-rank change inside the rounding (LR-QAT, arXiv 2406.06385): code =
//   round(first code + B A / first scale);
// - every weight, as latent steps of its first scale (LSQ).
#ifndef SERVICES_FINETUNER_GRID_PARAMETERS_H_
#define SERVICES_FINETUNER_GRID_PARAMETERS_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/grid_linear.h"
#include "services/finetuner/tunable.h"
#include "services/model/tensor_names.h"

namespace onegrid::finetuner {

// What is trained, and how fast over the stage's learning rate.
struct GridTraining {
  bool scales = true;
  double scale_rate = 1;
  // 0: none. Not together with `latent`.
  int64_t rank = 0;
  double alpha = 0;
  double low_rank_rate = 1;
  // Every weight.
  bool latent = false;
  double latent_rate = 1;
  uint64_t seed = 0;
  // By linear: true for those that stay as they are. Empty: none.
  std::vector<bool> fixed = {};
};

// Not thread-safe, but Add may be called by the thread of the backward pass.
class GridParameters : public WeightGradientSink {
 public:
  // Starts at `linears`. With training.latent, `weights` [out, in] float32
  // gives the latent values, as far as they round to the linears' codes: so a
  // start by error feedback is kept. Empty: the codes. InvalidArgument
  // (INVALID_HYPERPARAMETER): nothing is trained, or rank and latent.
  // FailedPrecondition (NOT_ON_GRID): a scale is not dual-exact, so that
  // training would change what it starts from.
  static absl::StatusOr<GridParameters> Create(
      absl::Span<const quant::GridMatrix> linears,
      absl::Span<const at::Tensor> weights, const GridTraining& training);

  GridParameters(GridParameters&&) = default;

  const at::Tensor& parameters() const { return parameters_; }
  const at::Tensor& gradients() const { return gradients_; }
  const std::vector<ParameterSpan>& spans() const { return spans_; }

  // What is trained, in words.
  std::string Describe() const;

  // Writes the dequantized linears into `model`.
  void WriteTo(GemmaModel* model) const;

  // Codes and scales of one linear as the forward pass has them.
  quant::GridMatrix Quantized(int64_t linear) const;
  std::vector<quant::GridMatrix> AllQuantized() const;

  void Add(int64_t first_linear, const at::Tensor& dw) override;

 private:
  // Views of the flat vectors; undefined where nothing is trained.
  struct Linear {
    at::Tensor move, grad_move;      // [out, groups]
    at::Tensor a, grad_a;            // [rank, in]
    at::Tensor b, grad_b;            // [out, rank]
    at::Tensor latent, grad_latent;  // [out, in]
  };
  GridParameters() = default;

  void AddLinear(int64_t linear, const at::Tensor& dw);
  // scale * B A, [out, in] float32; undefined without a low-rank change.
  at::Tensor Change(const Linear& linear) const;
  // Latent steps of one row into `phi` [in].
  void LoadPhi(int64_t linear, int64_t row, const at::Tensor& change,
               float* phi) const;
  // Scales of one row, and first scale / scale where weights stay. [groups]
  void LoadScales(int64_t linear, int64_t row, float* scale,
                  float* ratio) const;

  std::vector<quant::GridMatrix> first_;
  GridTraining training_;
  std::vector<Linear> linears_;
  std::vector<ParameterSpan> spans_;
  at::Tensor parameters_;
  at::Tensor gradients_;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_GRID_PARAMETERS_H_
