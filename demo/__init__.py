"""The live demo: pictures in, results, measurements and drawings out, and the page that shows them."""
