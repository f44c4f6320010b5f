# Counts the sequences of a FASTA file. $1: path of the file, plain or compressed with gzip.
set -eu -o pipefail

unpacked() {
    # gzip's magic number decides, not the name.
    if [ "$(od -An -tx1 -N2 "$1" | tr -d ' \n')" = 1f8b ]; then gzip -dc "$1"; else cat "$1"; fi
}

unpacked "$1" | awk '
    function close_one() {
        if (count == 0) return
        letters += length_of
        if (count == 1 || length_of < shortest) shortest = length_of
        if (length_of > longest) longest = length_of
    }
    { sub(/\r$/, "") }
    /^>/ { close_one(); count++; length_of = 0; next }
    /^;/ { next }
    /[^ \t]/ {
        if (count == 0) { print "line " NR " is no FASTA: a sequence begins with a line like >name" > "/dev/stderr"; bad = 1; exit 1 }
        gsub(/[ \t]/, ""); length_of += length($0)
    }
    END {
        if (bad) exit 1
        close_one()
        print "sequences\t" count + 0
        print "letters\t" letters + 0
        print "shortest\t" shortest + 0
        print "longest\t" longest + 0
    }'
