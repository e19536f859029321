import StatePools
import Testing

@Suite struct PoolCalculatorTests {
    @Test func aTrillionParametersAtFourDevices() throws {
        let padded = try PoolCalculator(shape: .ling1T, tensorParallel: 4, isPadded: true)
        let unpadded = try PoolCalculator(shape: .ling1T, tensorParallel: 4)
        #expect(padded.bytesPerToken == 12_800, "12.5 KiB: ten layers of 640 lanes in BF16")
        #expect(unpadded.bytesPerToken == 11_520, "11.25 KiB")
        #expect(padded.bytesPerRequest == 70 << 20 && unpadded.bytesPerRequest == 70 << 20)
        #expect(
            padded.summary
                == "TP 4, padded to 128 lanes: 12.5 KiB per token over 10 MLA layers, 70 MiB per request over 70 linear layers"
        )
        #expect(unpadded.summary.hasPrefix("TP 4, unpadded: 11.25 KiB per token"))
    }

    @Test func oneDeviceHoldsFourTimesTheState() throws {
        #expect(try PoolCalculator(shape: .ling1T).bytesPerRequest == 280 << 20)
    }

    @Test func theBudgetIsSplitByTheRatio() throws {
        let calculator = try PoolCalculator(shape: .ling1T, tensorParallel: 4, isPadded: true)
        let capacity = try calculator.capacity(bytes: 19 << 30)
        #expect(capacity.requests == 130, "9 GiB of 70 MiB slots, one of them padding")
        #expect(capacity.tokens == 13_106 * 64, "10 GiB of 800 KiB pages, one of them padding")
        #expect(capacity.recurrentBytes <= 9 << 30 && capacity.latentBytes <= 10 << 30)
        #expect(
            capacity.description
                == "130 requests (8.96 GiB of recurrent state), 838784 tokens (10 GiB of KV)")
    }

    @Test func unusableBudgetsAreRefusedWithTheNumbers() throws {
        let calculator = try PoolCalculator(shape: .ling1T, tensorParallel: 4)
        #expect(throws: PoolBudgetError.self) { try calculator.capacity(bytes: 100 << 20) }
        #expect(throws: PoolBudgetError.self) { try calculator.capacity(bytes: 1 << 34, ratio: 0) }
        #expect(throws: PoolBudgetError.self) { try calculator.capacity(bytes: 1 << 34, ratio: .infinity) }
        #expect(throws: PoolBudgetError.self) { try PoolCalculator(shape: .ling1T, tensorParallel: 3) }
        let error = #expect(throws: PoolBudgetError.self) { try PoolCalculator(shape: .ling1T, tensorParallel: 0) }
        #expect(error?.description == "64 heads do not split over 0 devices")
    }
}
