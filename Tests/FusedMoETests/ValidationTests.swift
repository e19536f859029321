import FusedMoE
import TPU
import Testing

struct ValidationTests {
    private func call(_ change: (inout KernelOptions) -> Void = { _ in }, wraps: Bool? = nil) throws -> KernelCall {
        var options = KernelOptions()
        change(&options)
        return try KernelCall(
            kernel: .v2, problem: MoEProblem(shape: .ling1T, tokens: 16384, devices: 32), options: options,
            topology: SliceTopology(named: "v7x-16", wraps: wraps))
    }

    @Test func everyKernelFigureIsKnown() throws {
        let figures = try PublishedFigure.kernelFigures()
        #expect(figures.count == 19)
        #expect(figures.first { $0.id == "v2-prefill-16384" }?.use == .predict)
        #expect(figures.first { $0.id == "vmem" }?.values == [44, 47, 54, 62])
    }

    /// Spec section 7.5.
    @Test func boundsAreExact() throws {
        let bounds = LowerBounds(try call())
        func thousandths(_ value: Double) -> Double { (value * 1000).rounded() / 1000 }
        #expect(thousandths(bounds.computeAsPrinted) == 0.357)
        #expect(thousandths(bounds.compute) == 0.201)
        #expect(thousandths(bounds.weightsOnce) == 0.109)
        #expect(thousandths(bounds.weightsPerTile) == 0.436)
        #expect(thousandths(LowerBounds(try call { $0.sharedExpert = .none }).compute) == 0.179)
    }

    @Test func busiestLinkCarriesTwiceAPayloadWithoutRings() throws {
        #expect(LowerBounds.busiestLinkLoad(try SliceTopology(named: "v7x-16"), devices: 32) == 2)
        #expect(LowerBounds.busiestLinkLoad(try SliceTopology(named: "v7x-16", wraps: true), devices: 32) == 1)
        #expect(LowerBounds.busiestLinkLoad(try SliceTopology(named: "v7x-8"), devices: 16) == 1)
    }

    /// VMEM of bts 128, 256 and 384 cannot be printed as 44, 54 and 62 if it grows linearly with the rows, and nothing that
    /// may be chosen besides makes it 44.
    @Test func noLegalTileOf128RowsTakes44Mebibytes() throws {
        var count = 0
        for tokens in [TokenFormat.bfloat16, .float8(.faithful)] {
            let problem = MoEProblem(
                shape: .ling1T, tokens: 16384, devices: 32, quantization: Quantization(tokens: tokens))
            for bt in [8, 16, 32, 64, 128, 256, 512] {
                for btc in [8, 16, 32, 64, 128] {
                    for placement in [SharedExpertPlacement.inKernel, .none] {
                        let options = KernelOptions(sharedExpert: placement)
                        let tile = TileConfiguration(bt: bt, bf: 512, bts: 128, btc: btc, bse: 512)
                        guard let legal = try? tile.effective(for: problem, kernel: .v2, options: options) else {
                            continue
                        }
                        let memory = MemoryEstimate(tile: legal, problem: problem, kernel: .v2, options: options)
                        guard memory.fits else { continue }
                        #expect(memory.vectorMebibytes.rounded() != 44, "\(legal)")
                        count += 1
                    }
                }
            }
        }
        #expect(count > 20)
    }

    /// No figure that must only be predicted is ever fitted.
    @Test func calibrationUsesFiguresThatMayBeFitted() throws {
        _ = try Calibration()
        let fitted = DeviceParameters.Name.allCases.filter { DeviceParameters.default[entry: $0].fitted }
        #expect(fitted.count <= 6, "\(fitted)")
    }

    /// The committed numbers, and with them every tolerance that was claimed for them, still come out.
    @Test func figuresDoNotDrift() throws {
        let validation = try Validation()
        #expect(try validation.drift(from: Validation.committedNumbers()) == [])
        for comparison in validation.comparisons {
            switch comparison.figure.use {
            case .calibrate: #expect(comparison.largestError <= 3, "\(comparison)")
            case .predict:
                let largest = comparison.relativeErrors.map(\.magnitude).max() ?? 0
                #expect(largest <= 15 || comparison.reason != nil, "\(comparison)")
            case .exact where comparison.figure.id == "vmem":
                // The blog prints 44 for the first, which contradicts the other three (see the reason).
                #expect(comparison.ours.map { $0.rounded() } == [45, 47, 54, 62])
            case .exact: #expect(comparison.largestError == 0, "\(comparison)")
            case .report: break
            }
        }
        #expect(validation.medianPredictedError <= 7)
        #expect(validation.medianRelativePredictedError <= 7)
        #expect(validation.sweep.map { $0.milliseconds == nil } == [false, false, false, true])
    }
}
