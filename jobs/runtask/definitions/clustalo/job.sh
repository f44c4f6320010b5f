# Aligns the sequences of a FASTA file with Clustal Omega. $1: path of the file.
set -eu

if ! command -v clustalo >/dev/null 2>&1; then
    echo "clustalo is not installed on this node: install it (Debian: apt-get install clustalo), or give this" \
        "definition an image that has it (job_define.json: \"image\")" >&2
    exit 127
fi
exec clustalo --infile "$1" --infmt fasta --outfmt fasta --threads "$(nproc)"
