# Where things are: sourced by every script of the VM harness, so that all of
# them mean the same folders.
#
#   CARGO_TARGET_DIR   where cargo builds (default: target/ in the repository)
#   FERRY_TARGET       keep the VM's kernel and modules here instead of there
# shellcheck shell=bash disable=SC2034

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cargo_target=$(realpath -m "${CARGO_TARGET_DIR:-$repo/target}")
vm_dir=$(realpath -m "${FERRY_TARGET:-$cargo_target}")/vm
kernel_dir=$vm_dir/kernel   # Debian's kernel packages, unpacked
module_dir=$vm_dir/modules  # modules as the guest loads them: NAME.ko
