#include "services/inference/open_inference_tensor.h"

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "services/common/error_info.h"

namespace onegrid::inference {
namespace {

using InputProto = oip::ModelInferRequest::InferInputTensor;

constexpr size_t kQuotedBytes = 64;

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

std::string AllowedText(absl::Span<const Datatype> allowed) {
  return absl::StrJoin(allowed, " or ", [](std::string* out, Datatype type) {
    absl::StrAppend(out, DatatypeName(type));
  });
}

// Bytes of an element; 0 for BYTES.
size_t ElementBytes(Datatype datatype) {
  switch (datatype) {
    case Datatype::kBool:
      return 1;
    case Datatype::kInt32:
    case Datatype::kUint32:
    case Datatype::kFp32:
      return 4;
    case Datatype::kInt64:
    case Datatype::kUint64:
    case Datatype::kFp64:
      return 8;
    case Datatype::kBytes:
      break;
  }
  return 0;
}

// The number of elements.
absl::StatusOr<int64_t> CheckShape(const std::string& what,
                                   const std::vector<int64_t>& shape) {
  bool empty = false;
  for (const int64_t dimension : shape) {
    if (dimension < 0) {
      return WrongTensor(what, "no negative dimension", ShapeText(shape));
    }
    empty |= dimension == 0;
  }
  if (empty) return 0;
  int64_t count = 1;
  for (const int64_t dimension : shape) {
    if (dimension > kMaxTensorElements / count) {
      return WrongTensor(
          what, absl::StrCat("at most ", kMaxTensorElements, " elements"),
          ShapeText(shape));
    }
    count *= dimension;
  }
  return count;
}

absl::Status WrongCount(const std::string& what,
                        const std::vector<int64_t>& shape, int64_t expected,
                        int64_t found) {
  return WrongTensor(
      what, absl::StrCat(expected, " elements of the shape ", ShapeText(shape)),
      absl::StrCat(found));
}

// The lists of `contents` other than that of `datatype` must be empty.
template <typename List>
absl::Status TakeList(const std::string& what, const List& list,
                      const oip::InferTensorContents& contents, int64_t count,
                      InputTensor* tensor) {
  const int64_t all =
      int64_t{contents.bool_contents_size()} + contents.int_contents_size() +
      contents.int64_contents_size() + contents.uint_contents_size() +
      contents.uint64_contents_size() + contents.fp32_contents_size() +
      contents.fp64_contents_size() + contents.bytes_contents_size();
  if (all != list.size()) {
    return WrongTensor(
        what, "all contents in the list of the datatype",
        absl::StrCat(all - list.size(), " elements in other lists"));
  }
  if (list.size() != count) {
    return WrongCount(what, tensor->shape, count, list.size());
  }
  using Element = std::decay_t<decltype(*list.begin())>;
  for (const auto& element : list) {
    if constexpr (std::is_same_v<Element, std::string>) {
      tensor->elements.emplace_back(absl::string_view(element));
    } else if constexpr (std::is_same_v<Element, bool>) {
      tensor->elements.emplace_back(static_cast<bool>(element));
    } else if constexpr (std::is_floating_point_v<Element>) {
      tensor->elements.emplace_back(static_cast<double>(element));
    } else if constexpr (std::is_signed_v<Element>) {
      tensor->elements.emplace_back(static_cast<int64_t>(element));
    } else {
      tensor->elements.emplace_back(static_cast<uint64_t>(element));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadContents(const std::string& what, Datatype datatype,
                          const oip::InferTensorContents& contents,
                          int64_t count, InputTensor* tensor) {
  const auto take = [&](const auto& list) {
    return TakeList(what, list, contents, count, tensor);
  };
  switch (datatype) {
    case Datatype::kBool:
      return take(contents.bool_contents());
    case Datatype::kInt32:
      return take(contents.int_contents());
    case Datatype::kInt64:
      return take(contents.int64_contents());
    case Datatype::kUint32:
      return take(contents.uint_contents());
    case Datatype::kUint64:
      return take(contents.uint64_contents());
    case Datatype::kFp32:
      return take(contents.fp32_contents());
    case Datatype::kFp64:
      return take(contents.fp64_contents());
    case Datatype::kBytes:
      return take(contents.bytes_contents());
  }
  return absl::OkStatus();
}

template <typename T>
T Load(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

TensorElement LoadElement(Datatype datatype, const char* bytes) {
  switch (datatype) {
    case Datatype::kBool:
      return *bytes != 0;
    case Datatype::kInt32:
      return int64_t{Load<int32_t>(bytes)};
    case Datatype::kInt64:
      return Load<int64_t>(bytes);
    case Datatype::kUint32:
      return uint64_t{Load<uint32_t>(bytes)};
    case Datatype::kUint64:
      return Load<uint64_t>(bytes);
    case Datatype::kFp32:
      return double{Load<float>(bytes)};
    case Datatype::kFp64:
      return Load<double>(bytes);
    case Datatype::kBytes:
      break;
  }
  return absl::string_view();
}

// Texts, each behind its length.
absl::Status ReadRawTexts(const std::string& what, absl::string_view raw,
                          int64_t count, InputTensor* tensor) {
  constexpr size_t kPrefix = sizeof(uint32_t);
  for (int64_t i = 0; i < count; ++i) {
    if (raw.size() < kPrefix) {
      return WrongTensor(
          what,
          absl::StrCat("a length of ", kPrefix, " bytes before element ", i),
          absl::StrCat(raw.size(), " bytes"));
    }
    const size_t size = Load<uint32_t>(raw.data());
    raw.remove_prefix(kPrefix);
    if (size > raw.size()) {
      return WrongTensor(
          what, absl::StrCat("the ", size, " bytes that element ", i, " has"),
          absl::StrCat(raw.size(), " bytes"));
    }
    tensor->elements.emplace_back(raw.substr(0, size));
    raw.remove_prefix(size);
  }
  if (!raw.empty()) {
    return WrongTensor(what,
                       absl::StrCat("no bytes after ", count, " elements"),
                       absl::StrCat(raw.size(), " bytes"));
  }
  return absl::OkStatus();
}

absl::Status ReadRaw(const std::string& what, Datatype datatype,
                     absl::string_view raw, int64_t count,
                     InputTensor* tensor) {
  if (datatype == Datatype::kBytes) {
    return ReadRawTexts(what, raw, count, tensor);
  }
  const size_t bytes = ElementBytes(datatype);
  if (raw.size() != static_cast<size_t>(count) * bytes) {
    return WrongTensor(what,
                       absl::StrCat(count * bytes, " bytes of the shape ",
                                    ShapeText(tensor->shape)),
                       absl::StrCat(raw.size(), " bytes"));
  }
  tensor->elements.reserve(count);
  for (int64_t i = 0; i < count; ++i) {
    tensor->elements.push_back(LoadElement(datatype, raw.data() + i * bytes));
  }
  return absl::OkStatus();
}

template <typename T>
void AppendBytes(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// The name of their datatype and their contents.
void AddElements(const std::vector<std::string>& texts, bool raw,
                 oip::ModelInferResponse::InferOutputTensor* output,
                 std::string* bytes) {
  output->set_datatype("BYTES");
  for (const std::string& text : texts) {
    if (!raw) {
      output->mutable_contents()->add_bytes_contents(text);
      continue;
    }
    AppendBytes(static_cast<uint32_t>(text.size()), bytes);
    bytes->append(text);
  }
}

template <typename T>
void AddElements(const std::vector<T>& values, bool raw,
                 oip::ModelInferResponse::InferOutputTensor* output,
                 std::string* bytes) {
  if (raw) {
    for (const T value : values) AppendBytes(value, bytes);
  }
  auto* contents = raw ? nullptr : output->mutable_contents();
  if constexpr (std::is_same_v<T, int32_t>) {
    output->set_datatype("INT32");
    if (!raw)
      contents->mutable_int_contents()->Add(values.begin(), values.end());
  } else if constexpr (std::is_same_v<T, uint32_t>) {
    output->set_datatype("UINT32");
    if (!raw)
      contents->mutable_uint_contents()->Add(values.begin(), values.end());
  } else {
    output->set_datatype("FP32");
    if (!raw)
      contents->mutable_fp32_contents()->Add(values.begin(), values.end());
  }
}

}  // namespace

absl::string_view DatatypeName(Datatype datatype) {
  switch (datatype) {
    case Datatype::kBool:
      return "BOOL";
    case Datatype::kInt32:
      return "INT32";
    case Datatype::kInt64:
      return "INT64";
    case Datatype::kUint32:
      return "UINT32";
    case Datatype::kUint64:
      return "UINT64";
    case Datatype::kFp32:
      return "FP32";
    case Datatype::kFp64:
      return "FP64";
    case Datatype::kBytes:
      return "BYTES";
  }
  return "";
}

std::string Quoted(absl::string_view text) {
  const bool cut = text.size() > kQuotedBytes;
  return absl::StrCat("\"", absl::CHexEscape(text.substr(0, kQuotedBytes)),
                      cut ? "...\"" : "\"");
}

absl::Status WrongTensor(absl::string_view what, absl::string_view expected,
                         absl::string_view found) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "INVALID_REQUEST",
      absl::StrCat(what, ": expected ", expected, ", found ", found),
      {{"what", std::string(what)},
       {"expected", std::string(expected)},
       {"found", std::string(found)}});
}

absl::StatusOr<InputTensor> ReadTensor(const InputProto& tensor,
                                       const std::string* raw,
                                       absl::Span<const Datatype> allowed) {
  const std::string what = absl::StrCat("input ", Quoted(tensor.name()));
  if (tensor.parameters().contains("shared_memory_region")) {
    return WrongTensor(what, "its elements", "shared memory");
  }
  const auto datatype = std::find_if(
      allowed.begin(), allowed.end(),
      [&](Datatype type) { return DatatypeName(type) == tensor.datatype(); });
  if (datatype == allowed.end()) {
    return WrongTensor(what, absl::StrCat("datatype ", AllowedText(allowed)),
                       Quoted(tensor.datatype()));
  }
  const int rank = tensor.shape_size();
  if (rank < 1 || rank > kMaxTensorRank) {
    return WrongTensor(what, absl::StrCat("1..", kMaxTensorRank, " dimensions"),
                       absl::StrCat(rank));
  }
  InputTensor read;
  read.shape.assign(tensor.shape().begin(), tensor.shape().end());
  ASSIGN_OR_RETURN(const int64_t count, CheckShape(what, read.shape));
  if (raw == nullptr) {
    RETURN_IF_ERROR(
        ReadContents(what, *datatype, tensor.contents(), count, &read));
    return read;
  }
  if (tensor.contents().ByteSizeLong() != 0) {
    return WrongTensor(what, "no contents beside raw_input_contents",
                       "contents");
  }
  RETURN_IF_ERROR(ReadRaw(what, *datatype, *raw, count, &read));
  return read;
}

void AddOutput(absl::string_view name, const OutputElements& elements,
               bool batched, bool raw, oip::ModelInferResponse* response) {
  auto* output = response->add_outputs();
  output->set_name(std::string(name));
  if (batched) output->add_shape(1);
  output->add_shape(std::visit(
      [](const auto& list) -> int64_t { return list.size(); }, elements));
  std::string bytes;
  std::visit([&](const auto& list) { AddElements(list, raw, output, &bytes); },
             elements);
  if (raw) response->add_raw_output_contents(std::move(bytes));
}

}  // namespace onegrid::inference
