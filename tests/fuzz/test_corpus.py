"""Every file that fuzzing started from is read, and every one that it found keeps what `targets` promises."""
