#include "services/finetuner/grid_parameters.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/finetuner/grid_rows.h"
#include "services/finetuner/rows.h"

namespace onegrid::finetuner {
namespace {

// Rows that one thread takes at a time.
constexpr int64_t kRowGrain = 16;

absl::Status Invalid(const std::string& what) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "INVALID_HYPERPARAMETER", what, {});
}

int64_t Groups(const quant::GridMatrix& matrix) {
  return matrix.cols / matrix.grid->group;
}

// Parts of a flat vector, handed out in order.
class Layout {
 public:
  // Reserves rows x cols parameters that learn at `rate`.
  int64_t Reserve(int64_t rows, int64_t cols, double rate) {
    const int64_t begin = size_;
    size_ += rows * cols;
    if (!spans_.empty() && spans_.back().learning_rate_multiplier == rate) {
      spans_.back().end = size_;
    } else {
      spans_.push_back({begin, size_, rate});
    }
    return begin;
  }

  int64_t size() const { return size_; }
  const std::vector<ParameterSpan>& spans() const { return spans_; }

 private:
  int64_t size_ = 0;
  std::vector<ParameterSpan> spans_;
};

at::Tensor View(const at::Tensor& flat, int64_t begin, int64_t rows,
                int64_t cols) {
  return flat.narrow(0, begin, rows * cols).view({rows, cols});
}

// Where the parts of one linear lie; -1: not trained.
struct Places {
  int64_t move = -1, a = -1, b = -1, latent = -1;
};

// Latent steps of float weights, moved to where they round to the codes that
// the matrix has.
void SetLatent(const quant::GridMatrix& first, const at::Tensor& weight,
               const at::Tensor& latent) {
  // Well inside the half step at which rounding goes to the next code: at its
  // edge the first optimizer step would flip every code that error feedback
  // chose against the nearest one, and undo it (seen: KL 0.08 to 6.9).
  constexpr float kInside = 0.3f;
  const int64_t group = first.grid->group;
  latent.copy_(weight);
  float* phi = latent.mutable_data_ptr<float>();
  for (size_t i = 0; i < first.codes.size(); ++i) {
    const float scale = first.scales[i / static_cast<size_t>(group)];
    const auto code = static_cast<float>(first.codes[i]);
    phi[i] = std::clamp(phi[i] / scale, code - kInside, code + kInside);
  }
}

}  // namespace

absl::StatusOr<GridParameters> GridParameters::Create(
    absl::Span<const quant::GridMatrix> linears,
    absl::Span<const at::Tensor> weights, const GridTraining& training) {
  if (!training.scales && training.rank == 0 && !training.latent) {
    return Invalid("nothing of the grid is to be trained");
  }
  if (training.rank > 0 && training.latent) {
    return Invalid("either every weight or a low-rank change is trained");
  }
  for (size_t i = 0; i < linears.size(); ++i) {
    for (const float scale : linears[i].scales) {
      if (quant::IsDualExact(scale)) continue;
      return common::MakeError(
          absl::StatusCode::kFailedPrecondition, "NOT_ON_GRID",
          absl::StrCat("linear ", i, " has the scale ", scale,
                       ", which is not dual-exact; import the model again"),
          {{"linear", absl::StrCat(i)}});
    }
  }
  GridParameters result;
  result.training_ = training;
  result.first_.assign(linears.begin(), linears.end());
  const auto fixed = [&](size_t linear) {
    return linear < training.fixed.size() && training.fixed[linear];
  };
  Layout layout;
  std::vector<Places> places(linears.size());
  for (size_t i = 0; i < linears.size(); ++i) {
    const quant::GridMatrix& m = linears[i];
    if (training.scales && !fixed(i)) {
      places[i].move = layout.Reserve(m.rows, Groups(m), training.scale_rate);
    }
  }
  for (size_t i = 0; i < linears.size(); ++i) {
    const quant::GridMatrix& m = linears[i];
    if (fixed(i)) continue;
    if (training.rank > 0) {
      places[i].a =
          layout.Reserve(training.rank, m.cols, training.low_rank_rate);
      places[i].b =
          layout.Reserve(m.rows, training.rank, training.low_rank_rate);
    }
    if (training.latent) {
      places[i].latent = layout.Reserve(m.rows, m.cols, training.latent_rate);
    }
  }
  result.spans_ = layout.spans();
  result.parameters_ = at::zeros({layout.size()}, at::kFloat);
  result.gradients_ = at::zeros({layout.size()}, at::kFloat);
  at::Generator random = at::detail::createCPUGenerator(training.seed);
  for (size_t i = 0; i < linears.size(); ++i) {
    const quant::GridMatrix& m = linears[i];
    const Places& place = places[i];
    Linear linear;
    const auto view = [&](int64_t begin, int64_t rows, int64_t cols,
                          at::Tensor* value, at::Tensor* gradient) {
      if (begin < 0) return;
      *value = View(result.parameters_, begin, rows, cols);
      *gradient = View(result.gradients_, begin, rows, cols);
    };
    view(place.move, m.rows, Groups(m), &linear.move, &linear.grad_move);
    view(place.a, training.rank, m.cols, &linear.a, &linear.grad_a);
    view(place.b, m.rows, training.rank, &linear.b, &linear.grad_b);
    view(place.latent, m.rows, m.cols, &linear.latent, &linear.grad_latent);
    if (linear.a.defined()) {
      const double bound = 1.0 / std::sqrt(static_cast<double>(m.cols));
      linear.a.uniform_(-bound, bound, random);
    }
    if (linear.latent.defined()) {
      SetLatent(m, weights.empty() ? DequantizeTensor(m) : weights[i],
                linear.latent);
    }
    result.linears_.push_back(std::move(linear));
  }
  return result;
}

std::string GridParameters::Describe() const {
  return absl::StrCat("scales=", training_.scales, "x", training_.scale_rate,
                      " rank=", training_.rank, "x", training_.low_rank_rate,
                      " alpha=", training_.alpha, " latent=", training_.latent,
                      "x", training_.latent_rate,
                      " parameters=", parameters_.numel());
}

at::Tensor GridParameters::Change(const Linear& linear) const {
  if (!linear.a.defined()) return at::Tensor();
  const c10::NoGradGuard no_grad;
  const double scale = training_.alpha / static_cast<double>(training_.rank);
  return at::mm(linear.b, linear.a).mul_(scale);
}

void GridParameters::LoadPhi(int64_t linear, int64_t row,
                             const at::Tensor& change, float* phi) const {
  const quant::GridMatrix& first = first_[static_cast<size_t>(linear)];
  const Linear& trained = linears_[static_cast<size_t>(linear)];
  const int64_t cols = first.cols;
  if (trained.latent.defined()) {
    const float* latent = trained.latent.const_data_ptr<float>() + row * cols;
    std::copy(latent, latent + cols, phi);
    return;
  }
  const int8_t* codes = first.codes.data() + row * cols;
  for (int64_t i = 0; i < cols; ++i) phi[i] = static_cast<float>(codes[i]);
  if (!change.defined()) return;
  const float* delta = change.const_data_ptr<float>() + row * cols;
  const float* scales = first.scales.data() + row * Groups(first);
  const int64_t group = first.grid->group;
  for (int64_t i = 0; i < cols; ++i) phi[i] += delta[i] / scales[i / group];
}

void GridParameters::LoadScales(int64_t linear, int64_t row, float* scale,
                                float* ratio) const {
  const quant::GridMatrix& first = first_[static_cast<size_t>(linear)];
  const Linear& trained = linears_[static_cast<size_t>(linear)];
  const int64_t groups = Groups(first);
  const float* start = first.scales.data() + row * groups;
  if (trained.move.defined()) {
    SnapScalesRow(start, trained.move.const_data_ptr<float>() + row * groups,
                  groups, scale);
  } else {
    std::copy(start, start + groups, scale);
  }
  for (int64_t g = 0; g < groups; ++g) ratio[g] = start[g] / scale[g];
}

quant::GridMatrix GridParameters::Quantized(int64_t linear) const {
  const auto index = static_cast<size_t>(linear);
  quant::GridMatrix result = first_[index];
  const int64_t cols = result.cols, groups = Groups(result);
  const bool latent = linears_[index].latent.defined();
  const at::Tensor change = Change(linears_[index]);
  at::parallel_for(0, result.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> phi(cols), w(cols), ratio(groups);
    for (int64_t row = begin; row < end; ++row) {
      float* scale = result.scales.data() + row * groups;
      LoadPhi(linear, row, change, phi.data());
      LoadScales(linear, row, scale, ratio.data());
      SnapWeightsRow(phi.data(), latent ? ratio.data() : nullptr, scale, cols,
                     *result.grid, w.data(), result.codes.data() + row * cols);
    }
  });
  return result;
}

std::vector<quant::GridMatrix> GridParameters::AllQuantized() const {
  std::vector<quant::GridMatrix> all;
  for (size_t i = 0; i < linears_.size(); ++i) {
    all.push_back(Quantized(static_cast<int64_t>(i)));
  }
  return all;
}

void GridParameters::WriteTo(GemmaModel* model) const {
  for (size_t i = 0; i < linears_.size(); ++i) {
    const auto linear = static_cast<int64_t>(i);
    const quant::GridMatrix& first = first_[i];
    const int64_t cols = first.cols, groups = Groups(first);
    const bool latent = linears_[i].latent.defined();
    const at::Tensor change = Change(linears_[i]);
    const at::Tensor weight = model->linear(linear);
    const Rows out(weight);
    at::parallel_for(0, first.rows, kRowGrain, [&](int64_t begin, int64_t end) {
      std::vector<float> phi(cols), w(cols), scale(groups), ratio(groups);
      for (int64_t row = begin; row < end; ++row) {
        LoadPhi(linear, row, change, phi.data());
        LoadScales(linear, row, scale.data(), ratio.data());
        SnapWeightsRow(phi.data(), latent ? ratio.data() : nullptr,
                       scale.data(), cols, *first.grid, w.data(), nullptr);
        out.Store(row, 0, cols, w.data());
      }
    });
  }
}

void GridParameters::Add(int64_t first_linear, const at::Tensor& dw) {
  int64_t offset = 0;
  for (int64_t linear = first_linear; offset < dw.size(0); ++linear) {
    const int64_t rows = first_[static_cast<size_t>(linear)].rows;
    AddLinear(linear, dw.narrow(0, offset, rows));
    offset += rows;
  }
}

void GridParameters::AddLinear(int64_t linear, const at::Tensor& dw) {
  const c10::NoGradGuard no_grad;
  const auto index = static_cast<size_t>(linear);
  const quant::GridMatrix& first = first_[index];
  Linear& trained = linears_[index];
  const int64_t cols = first.cols, groups = Groups(first);
  const bool latent = trained.latent.defined();
  const at::Tensor change = Change(trained);
  // d loss / d change, [out, in].
  const at::Tensor d_change = change.defined()
                                  ? at::empty({first.rows, cols}, at::kFloat)
                                  : at::Tensor();
  float* move = trained.move.defined()
                    ? trained.grad_move.mutable_data_ptr<float>()
                    : nullptr;
  const Rows in(dw);
  at::parallel_for(0, first.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> d(cols), phi(cols), out(cols), scale(groups),
        ratio(groups);
    for (int64_t row = begin; row < end; ++row) {
      const float* start = first.scales.data() + row * groups;
      LoadPhi(linear, row, change, phi.data());
      LoadScales(linear, row, scale.data(), ratio.data());
      GridGradRow(in.Load(row, 0, cols, d.data()), phi.data(),
                  latent ? ratio.data() : nullptr, start, scale.data(), cols,
                  *first.grid,
                  latent || change.defined() ? out.data() : nullptr,
                  move == nullptr ? nullptr : move + row * groups);
      if (latent) {
        float* to = trained.grad_latent.mutable_data_ptr<float>() + row * cols;
        for (int64_t i = 0; i < cols; ++i) to[i] += out[i];
      } else if (change.defined()) {
        float* to = d_change.mutable_data_ptr<float>() + row * cols;
        for (int64_t i = 0; i < cols; ++i) {
          to[i] = out[i] / start[i / first.grid->group];
        }
      }
    }
  });
  if (!change.defined()) return;
  const double scale = training_.alpha / static_cast<double>(training_.rank);
  trained.grad_b.addmm_(d_change, trained.a.t(), 1, scale);
  trained.grad_a.addmm_(trained.b.t(), d_change, 1, scale);
}

}  // namespace onegrid::finetuner
