#ifndef SERVICES_MODEL_GGUF_VALUE_H_
#define SERVICES_MODEL_GGUF_VALUE_H_

#include <cstdint>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

namespace onegrid::model {

// The value types of GGUF metadata, numbered as in the file.
enum class GgufValueType : uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};

// One metadata value: a scalar, or an array of one scalar type. Arrays of
// arrays do not occur (the llama.cpp reader refuses them, so does ours).
using GgufValue = std::variant<
    uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool,
    std::string, uint64_t, int64_t, double, std::vector<uint8_t>,
    std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>,
    std::vector<uint32_t>, std::vector<int32_t>, std::vector<float>,
    std::vector<bool>, std::vector<std::string>, std::vector<uint64_t>,
    std::vector<int64_t>, std::vector<double>>;

// The type number of a scalar C++ type.
template <typename T>
constexpr GgufValueType GgufTypeOf() {
  if constexpr (std::is_same_v<T, uint8_t>) return GgufValueType::kU8;
  if constexpr (std::is_same_v<T, int8_t>) return GgufValueType::kI8;
  if constexpr (std::is_same_v<T, uint16_t>) return GgufValueType::kU16;
  if constexpr (std::is_same_v<T, int16_t>) return GgufValueType::kI16;
  if constexpr (std::is_same_v<T, uint32_t>) return GgufValueType::kU32;
  if constexpr (std::is_same_v<T, int32_t>) return GgufValueType::kI32;
  if constexpr (std::is_same_v<T, float>) return GgufValueType::kF32;
  if constexpr (std::is_same_v<T, bool>) return GgufValueType::kBool;
  if constexpr (std::is_same_v<T, std::string>) return GgufValueType::kString;
  if constexpr (std::is_same_v<T, uint64_t>) return GgufValueType::kU64;
  if constexpr (std::is_same_v<T, int64_t>) return GgufValueType::kI64;
  if constexpr (std::is_same_v<T, double>) return GgufValueType::kF64;
}

// "u32", "string", "array", ...; "?" for a number outside the enum.
inline const char* GgufTypeName(GgufValueType type) {
  constexpr const char* kNames[] = {"u8",  "i8",  "u16",  "i16",    "u32",
                                    "i32", "f32", "bool", "string", "array",
                                    "u64", "i64", "f64"};
  const uint32_t index = static_cast<uint32_t>(type);
  return index <= 12 ? kNames[index] : "?";
}

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_GGUF_VALUE_H_
