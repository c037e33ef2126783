// Goal: a tensor is read only if it is what it says, and what is wrong is
// named.
#include "services/inference/open_inference_tensor.h"

#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "services/common/error_info.h"

namespace onegrid::inference {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Input = oip::ModelInferRequest::InferInputTensor;

constexpr Datatype kAll[] = {
    Datatype::kBool,   Datatype::kInt32, Datatype::kInt64, Datatype::kUint32,
    Datatype::kUint64, Datatype::kFp32,  Datatype::kFp64,  Datatype::kBytes};

Input Tensor(const std::string& datatype, const std::vector<int64_t>& shape) {
  Input tensor;
  tensor.set_name("x");
  tensor.set_datatype(datatype);
  tensor.mutable_shape()->Add(shape.begin(), shape.end());
  return tensor;
}

template <typename T>
std::string Bytes(const std::vector<T>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()),
                     values.size() * sizeof(T));
}

std::string Text(const std::string& text) {
  return Bytes<uint32_t>({static_cast<uint32_t>(text.size())}) + text;
}

// The error of reading `tensor`, which must say `expected` and `found`.
void ExpectError(const Input& tensor, const std::string* raw,
                 const std::string& expected, const std::string& found) {
  const absl::Status status = ReadTensor(tensor, raw, kAll).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << expected;
  EXPECT_EQ(common::ErrorReason(status), "INVALID_REQUEST");
  EXPECT_THAT(status.message(), HasSubstr("input \"x\"")) << expected;
  const auto metadata = common::ErrorMetadata(status);
  EXPECT_THAT(metadata.at("expected"), HasSubstr(expected));
  EXPECT_THAT(metadata.at("found"), HasSubstr(found)) << expected;
}

TEST(OpenInferenceTensorTest, RawElementsOfEveryDatatype) {
  const struct {
    const char* datatype;
    std::string raw;
    TensorElement second;
  } cases[] = {
      {"BOOL", std::string("\0\1", 2), true},
      {"INT32", Bytes<int32_t>({1, -2}), int64_t{-2}},
      {"INT64", Bytes<int64_t>({1, int64_t{-1} << 40}), int64_t{-1} << 40},
      {"UINT32", Bytes<uint32_t>({1, 4294967295u}), uint64_t{4294967295u}},
      {"UINT64", Bytes<uint64_t>({1, ~uint64_t{0}}), ~uint64_t{0}},
      {"FP32", Bytes<float>({1, 0.5f}), 0.5},
      {"FP64", Bytes<double>({1, 1e300}), 1e300},
      {"BYTES", Text("a") + Text(std::string("\0b", 2)),
       absl::string_view("\0b", 2)},
  };
  for (const auto& c : cases) {
    const auto read = ReadTensor(Tensor(c.datatype, {1, 2}), &c.raw, kAll);
    ASSERT_TRUE(read.ok()) << c.datatype << read.status();
    ASSERT_EQ(read->elements.size(), 2u);
    EXPECT_EQ(read->elements[1], c.second) << c.datatype;
    EXPECT_THAT(read->shape, ElementsAre(1, 2));
  }
}

TEST(OpenInferenceTensorTest, TypedElementsOfEveryDatatype) {
  Input tensor = Tensor("BOOL", {1});
  tensor.mutable_contents()->add_bool_contents(true);
  EXPECT_EQ(ReadTensor(tensor, nullptr, kAll)->elements[0],
            TensorElement(true));
  tensor = Tensor("INT32", {1});
  tensor.mutable_contents()->add_int_contents(-3);
  EXPECT_EQ(ReadTensor(tensor, nullptr, kAll)->elements[0],
            TensorElement(int64_t{-3}));
  tensor = Tensor("UINT64", {1});
  tensor.mutable_contents()->add_uint64_contents(~uint64_t{0});
  EXPECT_EQ(ReadTensor(tensor, nullptr, kAll)->elements[0],
            TensorElement(~uint64_t{0}));
  tensor = Tensor("FP32", {1});
  tensor.mutable_contents()->add_fp32_contents(0.25);
  EXPECT_EQ(ReadTensor(tensor, nullptr, kAll)->elements[0],
            TensorElement(0.25));
  tensor = Tensor("BYTES", {2});
  tensor.mutable_contents()->add_bytes_contents("a");
  tensor.mutable_contents()->add_bytes_contents("b");
  EXPECT_EQ(ReadTensor(tensor, nullptr, kAll)->elements[1],
            TensorElement(absl::string_view("b")));
}

TEST(OpenInferenceTensorTest, OnlyAllowedDatatypesAreRead) {
  const std::string raw = Bytes<float>({1});
  ExpectError(Tensor("FP16", {1}), &raw, "datatype BOOL or", "\"FP16\"");
  ExpectError(Tensor("", {1}), &raw, "datatype", "\"\"");
  ExpectError(Tensor("fp32", {1}), &raw, "datatype", "\"fp32\"");
  const absl::Status status =
      ReadTensor(Tensor("FP32", {1}), &raw, {Datatype::kInt32}).status();
  EXPECT_THAT(status.message(), HasSubstr("expected datatype INT32"));
}

TEST(OpenInferenceTensorTest, AbsurdShapesAreRefusedBeforeTheyAreCounted) {
  const std::string raw;
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  ExpectError(Tensor("INT32", {}), &raw, "dimensions", "0");
  ExpectError(Tensor("INT32", std::vector<int64_t>(100000, 1)), &raw,
              "1..8 dimensions", "100000");
  ExpectError(Tensor("INT32", {-1}), &raw, "no negative", "[-1]");
  ExpectError(Tensor("INT32", {0, -1}), &raw, "no negative", "[0, -1]");
  ExpectError(Tensor("INT32", {std::numeric_limits<int64_t>::min()}), &raw,
              "no negative", "[-9223372036854775808]");
  ExpectError(Tensor("INT32", {kMost}), &raw, "at most", "[92");
  // The product of these is 0 in 64 bits.
  ExpectError(Tensor("INT32", {int64_t{1} << 32, int64_t{1} << 32}), &raw,
              "at most", "[4294967296, 4294967296]");
  ExpectError(Tensor("BYTES", {1 << 11, 1 << 11}), &raw, "at most", "2048");
}

TEST(OpenInferenceTensorTest, EmptyTensorsHaveNoElements) {
  const std::string raw;
  const auto read = ReadTensor(
      Tensor("INT64", {0, std::numeric_limits<int64_t>::max()}), &raw, kAll);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_TRUE(read->elements.empty());
}

TEST(OpenInferenceTensorTest, BytesMustBeThoseOfTheShape) {
  for (const size_t size : {0, 1, 7, 9, 16}) {
    const std::string raw(size, 'a');
    ExpectError(Tensor("INT32", {2}), &raw, "8 bytes of the shape [2]",
                std::to_string(size));
  }
  const std::string one = Text("abc");
  for (size_t size = 0; size < one.size(); ++size) {
    const std::string cut = one.substr(0, size);
    ExpectError(Tensor("BYTES", {1}), &cut,
                size < 4 ? "a length of 4 bytes" : "the 3 bytes", "bytes");
  }
  const std::string more = one + "d";
  ExpectError(Tensor("BYTES", {1}), &more, "no bytes after 1", "1 bytes");
  const std::string long_prefix = Bytes<uint32_t>({0xffffffff}) + "abc";
  ExpectError(Tensor("BYTES", {1}), &long_prefix, "the 4294967295 bytes",
              "3 bytes");
}

TEST(OpenInferenceTensorTest, ContentsMustBeInTheListOfTheDatatype) {
  Input tensor = Tensor("INT32", {1});
  ExpectError(tensor, nullptr, "1 elements of the shape [1]", "0");
  tensor.mutable_contents()->add_int64_contents(1);
  ExpectError(tensor, nullptr, "list of the datatype", "1 elements");
  tensor.mutable_contents()->add_int_contents(1);
  ExpectError(tensor, nullptr, "list of the datatype", "1 elements");
  tensor.mutable_contents()->clear_int64_contents();
  EXPECT_TRUE(ReadTensor(tensor, nullptr, kAll).ok());
  tensor.mutable_contents()->add_int_contents(1);
  ExpectError(tensor, nullptr, "1 elements of the shape [1]", "2");
}

TEST(OpenInferenceTensorTest, ElementsStandInOnePlace) {
  Input tensor = Tensor("INT32", {1});
  tensor.mutable_contents()->add_int_contents(1);
  const std::string raw = Bytes<int32_t>({1});
  ExpectError(tensor, &raw, "no contents beside raw_input_contents",
              "contents");
  tensor = Tensor("INT32", {1});
  (*tensor.mutable_parameters())["shared_memory_region"].set_string_param("a");
  ExpectError(tensor, &raw, "its elements", "shared memory");
}

TEST(OpenInferenceTensorTest, OutputsAreRawOrTyped) {
  oip::ModelInferResponse response;
  AddOutput("t", std::vector<std::string>{"ab"}, /*batched=*/false,
            /*raw=*/true, &response);
  AddOutput("i", std::vector<int32_t>{7, -1}, /*batched=*/true, /*raw=*/true,
            &response);
  EXPECT_EQ(response.outputs(0).datatype(), "BYTES");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(1));
  EXPECT_EQ(response.raw_output_contents(0), Text("ab"));
  EXPECT_THAT(response.outputs(1).shape(), ElementsAre(1, 2));
  EXPECT_EQ(response.raw_output_contents(1), Bytes<int32_t>({7, -1}));

  response.Clear();
  AddOutput("t", std::vector<std::string>{"ab"}, false, false, &response);
  AddOutput("n", std::vector<uint32_t>{5}, false, false, &response);
  AddOutput("f", std::vector<float>{-0.5f}, false, false, &response);
  EXPECT_EQ(response.raw_output_contents_size(), 0);
  EXPECT_THAT(response.outputs(0).contents().bytes_contents(),
              ElementsAre("ab"));
  EXPECT_THAT(response.outputs(1).contents().uint_contents(), ElementsAre(5));
  EXPECT_EQ(response.outputs(2).datatype(), "FP32");
  EXPECT_THAT(response.outputs(2).contents().fp32_contents(),
              ElementsAre(-0.5f));
}

TEST(OpenInferenceTensorTest, ErrorsStaySmallAndPrintable) {
  Input tensor = Tensor("INT32", {1});
  tensor.set_name(std::string(1 << 20, 'n') + "\n");
  tensor.set_datatype("\u00e9\n" + std::string(1 << 20, 'd'));
  const absl::Status status = ReadTensor(tensor, nullptr, kAll).status();
  EXPECT_LT(status.message().size(), 500u);
  EXPECT_THAT(status.message(), HasSubstr("\\xc3\\xa9\\n"));
}

}  // namespace
}  // namespace onegrid::inference
