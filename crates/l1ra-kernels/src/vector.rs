//! Functions that are compiled once for every set of vector instructions, and chosen among at run time.

/// Defines a function whose body is compiled for AVX-512, AVX2, NEON and without either.
///
/// A closure given to `Arch::dispatch` would not do: where the compiler leaves it out of line it is
/// compiled once, for the oldest machine. What the body calls has to be `#[inline(always)]`, or short.
macro_rules! vectorized {
    (
        $(#[$meta:meta])*
        $visibility:vis fn $name:ident $(<$generic:ident : $bound:path>)? (
            $($argument:ident : $type:ty),* $(,)?
        ) $(-> $output:ty)? $body:block
    ) => {
        $(#[$meta])*
        $visibility fn $name $(<$generic: $bound>)? ($($argument: $type),*) $(-> $output)? {
            struct Call<T>(T);
            impl $(<$generic: $bound>)? pulp::WithSimd for Call<($($type,)*)> {
                type Output = $crate::vector::output!($($output)?);

                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
                    let Call(($($argument,)*)) = self;
                    $body
                }
            }
            pulp::Arch::new().dispatch(Call(($($argument,)*)))
        }
    };
}

/// The type, or that of nothing.
macro_rules! output {
    () => {
        ()
    };
    ($type:ty) => {
        $type
    };
}

pub(crate) use {output, vectorized};
