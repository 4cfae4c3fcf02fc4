#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mcpgw_dataplane::testing::fuzz::sse(data));
