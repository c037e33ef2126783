#include "kernels/reference/ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/base/check.h"

namespace onegrid::reference {
namespace {

void CheckSize(size_t found, int64_t expected) {
  KERNELS_CHECK(static_cast<int64_t>(found) == expected);
}

}  // namespace

std::vector<float> MatMul(absl::Span<const float> x, absl::Span<const float> w,
                          int64_t m, int64_t n, int64_t k) {
  CheckSize(x.size(), m * k);
  CheckSize(w.size(), n * k);
  std::vector<float> out(m * n);
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t col = 0; col < n; ++col) {
      double sum = 0;
      for (int64_t i = 0; i < k; ++i) {
        sum += double{x[row * k + i]} * double{w[col * k + i]};
      }
      out[row * n + col] = static_cast<float>(sum);
    }
  }
  return out;
}

std::vector<float> RmsNorm(absl::Span<const float> x,
                           absl::Span<const float> weight, int64_t m, int64_t k,
                           double eps) {
  CheckSize(x.size(), m * k);
  CheckSize(weight.size(), k);
  std::vector<float> out(m * k);
  for (int64_t row = 0; row < m; ++row) {
    double sum = 0;
    for (int64_t i = 0; i < k; ++i) {
      sum += double{x[row * k + i]} * double{x[row * k + i]};
    }
    const double factor = 1.0 / std::sqrt(sum / static_cast<double>(k) + eps);
    for (int64_t i = 0; i < k; ++i) {
      out[row * k + i] =
          static_cast<float>(x[row * k + i] * factor * double{weight[i]});
    }
  }
  return out;
}

std::vector<float> RopeNeox(absl::Span<const float> x,
                            absl::Span<const int32_t> positions, int64_t heads,
                            int64_t head_dim, double theta,
                            double position_scale) {
  const int64_t tokens = static_cast<int64_t>(positions.size());
  const int64_t half = head_dim / 2;
  KERNELS_CHECK(head_dim % 2 == 0);
  CheckSize(x.size(), tokens * heads * head_dim);
  std::vector<float> out(x.size());
  for (int64_t row = 0; row < tokens * heads; ++row) {
    const double position = positions[row / heads] / position_scale;
    for (int64_t i = 0; i < half; ++i) {
      const double angle =
          position * std::pow(theta, -2.0 * static_cast<double>(i) /
                                         static_cast<double>(head_dim));
      const double a = x[row * head_dim + i];
      const double b = x[row * head_dim + i + half];
      out[row * head_dim + i] =
          static_cast<float>(a * std::cos(angle) - b * std::sin(angle));
      out[row * head_dim + i + half] =
          static_cast<float>(a * std::sin(angle) + b * std::cos(angle));
    }
  }
  return out;
}

std::vector<float> GeluTanh(absl::Span<const float> x) {
  const double factor = std::sqrt(2.0 / std::acos(-1.0));
  std::vector<float> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double v = x[i];
    out[i] = static_cast<float>(
        0.5 * v * (1.0 + std::tanh(factor * (v + 0.044715 * v * v * v))));
  }
  return out;
}

std::vector<float> Softmax(absl::Span<const float> x, int64_t m, int64_t k) {
  CheckSize(x.size(), m * k);
  std::vector<float> out(m * k);
  for (int64_t row = 0; row < m; ++row) {
    const auto in = x.subspan(row * k, k);
    if (in.empty()) continue;
    const double top = *std::max_element(in.begin(), in.end());
    double sum = 0;
    for (const float v : in) sum += std::exp(v - top);
    for (int64_t i = 0; i < k; ++i) {
      out[row * k + i] = static_cast<float>(std::exp(in[i] - top) / sum);
    }
  }
  return out;
}

std::vector<float> Attention(const AttentionShape& shape,
                             absl::Span<const float> q,
                             absl::Span<const float> k,
                             absl::Span<const float> v) {
  const int64_t d = shape.head_dim;
  KERNELS_CHECK(shape.heads % shape.kv_heads == 0);
  KERNELS_CHECK(shape.first_pos >= 0);
  KERNELS_CHECK(shape.first_pos + shape.queries <= shape.keys);
  CheckSize(q.size(), shape.queries * shape.heads * d);
  CheckSize(k.size(), shape.keys * shape.kv_heads * d);
  CheckSize(v.size(), shape.keys * shape.kv_heads * d);
  std::vector<float> out(q.size());
  for (int64_t row = 0; row < shape.queries * shape.heads; ++row) {
    const int64_t position = shape.first_pos + row / shape.heads;
    const int64_t kv_head = row % shape.heads / (shape.heads / shape.kv_heads);
    const int64_t begin =
        shape.window > 0 ? std::max<int64_t>(0, position - shape.window + 1)
                         : 0;
    const auto offset = [&](int64_t s) {
      return (s * shape.kv_heads + kv_head) * d;
    };
    std::vector<double> weights;
    for (int64_t s = begin; s <= position; ++s) {
      double dot = 0;
      for (int64_t i = 0; i < d; ++i) {
        dot += double{q[row * d + i]} * double{k[offset(s) + i]};
      }
      weights.push_back(dot * shape.scale);
    }
    const double top = *std::max_element(weights.begin(), weights.end());
    double sum = 0;
    for (double& weight : weights) sum += weight = std::exp(weight - top);
    for (int64_t i = 0; i < d; ++i) {
      double value = 0;
      for (int64_t s = begin; s <= position; ++s) {
        value += weights[s - begin] * double{v[offset(s) + i]};
      }
      out[row * d + i] = static_cast<float>(value / sum);
    }
  }
  return out;
}

std::vector<float> Hadamard(absl::Span<const float> x, int64_t m, int64_t d) {
  KERNELS_CHECK(d > 0 && std::has_single_bit(static_cast<uint64_t>(d)));
  CheckSize(x.size(), m * d);
  const double norm = std::sqrt(static_cast<double>(d));
  std::vector<float> out(m * d);
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t i = 0; i < d; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < d; ++j) {
        const bool odd = std::popcount(static_cast<uint64_t>(i & j)) % 2 == 1;
        const double value = x[row * d + j];
        sum += odd ? -value : value;
      }
      out[row * d + i] = static_cast<float>(sum / norm);
    }
  }
  return out;
}

}  // namespace onegrid::reference
