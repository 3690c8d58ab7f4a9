"""mag_train trains MAG: a retoucher that hides splices against an annotator that finds them."""
